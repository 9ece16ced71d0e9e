#!/usr/bin/env python3
"""The reference receiver: removes duplicates and proves that nothing is missing.

Reads lines "TOPIC PAYLOAD", as `mosquitto_sub -t 'fieldspool/#' -F '%t %p'` prints them, from standard input or from
files, and says for each gateway which readings it holds, which are missing and why. What it does is all that a receiver
has to do; the tests of fieldspool judge with it.

The rules, in the order in which they are applied:

1. A batch is (gateway, run, seq) with n readings. A second copy is dropped. Its content must be the same, except for
   its stamp: a copy without `clock` or with "corrected" replaces one that says "unsynced".
2. A record is (gateway, run, number). A second copy is dropped.
3. `prev` links the batches of one device: the batch before it, in the same run, begins at `prev`.
4. A `clock` record says by how much the clock was wrong until it was set: offset_us is added to the stamp of every batch of
   its run that says "unsynced" and came in no corrected copy. (Batches of an earlier run in the same boot come corrected,
   unless they were confirmed before the clock was set.)
5. A `run_end` says that a run has the readings 0 to next_seq - 1. A `gap` names readings that will not come.
   A `gaps` stands for all gaps of its run and cause within its stretch, and says how many of its readings will not come,
   not which: as many may be missing there, and no more.
   Missing of an ended run = 0 to next_seq - 1, less what is held, less its gaps. A run that ended in order ("clean") has
   no others. One that was killed may have sent more than it had stored: what arrived is as good as the rest, but no record
   tells what should have. It is said apart, with its holes: each number below the highest held that is neither held nor
   in a gap was lost with the kill, or on the way. Whether more followed nobody can tell. With keep = "all" this concerns
   the readings of one commit window and one commit; with keep = "unsent" also those acknowledged since the run's last
   mark, of which it leaves one each 60 s.
6. Of a run without a run end, everything up to the highest reading held is expected.
7. With --from-now, nothing is expected from before the first batch that arrived: somebody else received that.

Exit code: 0 nothing is missing, 1 something is, 2 the input contradicts itself, 3 nothing is proved, as no reading is told of.
Holes beyond the recorded end of a killed run leave it as it is: a kill may cost a window, so they are no proof of a fault.
Who will not take them for granted looks at "beyond_missing" in the report (--json).

It needs Python 3.9 and nothing else.
"""

import argparse
import json
import sys
from datetime import datetime, timedelta


def later(time, offset_us):
    """A stamp of RFC 3339, moved."""
    moved = datetime.fromisoformat(time.replace("Z", "+00:00")) + timedelta(microseconds=offset_us)
    return moved.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Intervals:
    """Numbers as sorted, disjoint stretches [first, next)."""

    def __init__(self):
        self.parts = []

    def add(self, first, next_):
        if first >= next_:
            return
        low, high = self._touching(first, next_)
        if low < high:
            first = min(first, self.parts[low][0])
            next_ = max(next_, self.parts[high - 1][1])
        self.parts[low:high] = [(first, next_)]

    def _touching(self, first, next_):
        # Arrivals are nearly in order, so the search begins at the end.
        high = len(self.parts)
        while high > 0 and self.parts[high - 1][0] > next_:
            high -= 1
        low = high
        while low > 0 and self.parts[low - 1][1] >= first:
            low -= 1
        return low, high

    def missing(self, end):
        """The stretches of [0, end) that are not here."""
        holes, at = [], 0
        for first, next_ in self.parts:
            if at >= end:
                break
            if first > at:
                holes.append((at, min(first, end)))
            at = max(at, next_)
        if at < end:
            holes.append((at, end))
        return holes

    def __len__(self):
        return sum(next_ - first for first, next_ in self.parts)

    @property
    def end(self):
        return self.parts[-1][1] if self.parts else 0


def overlap(one, other):
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))


def total(stretches):
    return sum(next_ - first for first, next_ in stretches)


def within(one, told):
    """Whether a greater stretch of those told holds this one."""
    first, next_ = one
    return any(a <= first and next_ <= b and (a, b) != one for a, b, _ in told)


class Run:
    """What is held of one life of one gateway."""

    def __init__(self):
        self.batches = {}  # seq -> ((device, n, prev, values ...), time, clock)
        self.events = {}  # number -> content
        self.held = Intervals()
        self.first = None  # seq of the batch that arrived first
        self.count = 0
        self.gaps = Intervals()
        self.told = {}  # cause -> [(first, next, lost)]
        self.end = None  # (next_seq, clean)
        self.offset_us = None  # what its unsynced stamps lack

    def times(self):
        """(seq, time, how it is known) of each batch, in order."""
        for seq, (_, time, clock) in sorted(self.batches.items()):
            if clock == "unsynced" and self.offset_us is not None:
                time, clock = later(time, self.offset_us), "corrected"
            yield seq, time, clock


class Receiver:
    """Takes messages in any order and reports what is missing."""

    def __init__(self):
        self.runs = {}  # (gateway, run) -> Run
        self.faults = []
        self.duplicates = 0
        self.readings = 0
        self.backlog = 0

    def run(self, gateway, name):
        return self.runs.setdefault((gateway, name), Run())

    def take(self, payload):
        message = json.loads(payload)
        if message["schema"] != "fieldspool/1":
            raise ValueError("another schema: " + message["schema"])
        if "batches" in message:
            for batch in message["batches"]:
                self.batch(message, batch)
        else:
            self.event(message)

    def batch(self, message, batch):
        run = self.run(message["gateway"], message["run"])
        seq, n = batch["seq"], batch["n"]
        if len(batch["points"]) != n:
            self.faults.append(f"batch {message['run']} {seq}: n is {n}, but it has {len(batch['points'])} points")
        content = (batch["device"], n, batch["prev"], batch["points"], batch.get("bad"), batch.get("uncertain"))
        clock = batch.get("clock", "synced")
        known = run.batches.get(seq)
        if known:
            self.duplicates += n
            if known[0] != content:
                self.faults.append(f"batch {message['run']} {seq}: two copies differ: {known[0]} and {content}")
            elif known[2] == "unsynced" and clock != "unsynced":
                run.batches[seq] = (content, batch["time"], clock)
            elif known[1] != batch["time"] and "unsynced" not in (known[2], clock):
                self.faults.append(f"batch {message['run']} {seq}: two stamps, {known[1]} and {batch['time']}")
            return
        run.batches[seq] = (content, batch["time"], clock)
        run.held.add(seq, seq + n)
        run.first = seq if run.first is None else run.first
        run.count += n
        self.readings += n
        if message["lane"] == "backlog":
            self.backlog += n

    def event(self, message):
        gateway = message["gateway"]
        run = self.run(gateway, message["run"])
        content = {k: v for k, v in message.items() if k not in ("time", "clock")}
        known = run.events.setdefault(message["number"], content)
        if known is not content:
            if known != content:
                self.faults.append(f"record {message['run']} {message['number']}: two copies differ")
            return
        if message["kind"] == "run_end":
            ended = self.run(gateway, message["ended"])
            end = (message["next_seq"], message["clean"])
            if ended.end not in (None, end):
                self.faults.append(f"run {message['ended']}: two ends, {ended.end} and {end}")
            ended.end = end
        elif message["kind"] == "clock":
            run.offset_us = message["offset_us"]
        elif message["kind"] == "gap":
            of = self.run(gateway, message["of"])
            first, next_ = message["first"], message["next"]
            of.gaps.add(first, next_)
            of.told.setdefault(message["cause"], []).append((first, next_, next_ - first))
        elif message["kind"] == "gaps":
            of = self.run(gateway, message["of"])
            told = (message["first"], message["next"], message["lost"])
            of.told.setdefault(message["cause"], []).append(told)

    def causes(self, run):
        """Readings that will not come, by cause; and the stretches of `gaps` with how many of them no `gap` names."""
        causes, many = {}, []
        for cause, told in run.told.items():
            kept = []
            # What lies within a greater stretch is told by it.
            for one in sorted(set(told), key=lambda one: (one[0], -one[1], -one[2])):
                if not kept or one[1] > kept[-1][1]:
                    kept.append(one)
            causes[cause] = sum(lost for _, _, lost in kept)
            many += [(first, next_) for first, next_, lost in kept if lost < next_ - first]
        hull = Intervals()
        for first, next_ in sorted(many):
            hull.add(first, next_)
        return causes, hull

    def links(self, name, run):
        """Proves `prev`: each batch of a device points at the device's batch before it, or at one that is not here."""
        newest = {}
        for seq in sorted(run.batches):
            device, _, prev = run.batches[seq][0][:3]
            expected = newest.get(device)
            if prev != expected and (prev is None or prev in run.batches):
                self.faults.append(f"run {name}: {device} at {seq} says prev {prev}, but {expected} was before it")
            newest[device] = seq

    def holes(self, run, covered, end):
        """What will not come, by cause, and what of [0, end) is neither covered nor told of by `gaps`."""
        causes, hull = self.causes(run)
        missing = covered.missing(end)
        # Within the stretches of `gaps` as many may be missing as will not come, less those that a `gap` names.
        inside = sum(overlap(hole, part) for hole in missing for part in hull.parts)
        named = sum(overlap(part, gap) for part in run.gaps.parts for gap in hull.parts)
        spare = sum(
            min(lost, overlap((first, next_), part))
            for told in run.told.values()
            for first, next_, lost in set(told)
            for part in hull.parts
            if not within((first, next_), told)
        )
        if inside and inside <= spare - named:
            for first, next_ in hull.parts:
                covered.add(first, next_)
            missing = covered.missing(end)
        return causes, missing

    def report(self, from_now=False):
        runs = []
        begun = set()  # gateways of which an earlier run has been seen
        for (gateway, name), run in sorted(self.runs.items()):
            self.links(name, run)
            end = run.end[0] if run.end else run.held.end
            if run.end and run.end[1] and run.held.end > end:
                self.faults.append(f"run {name}: ended at {end}, but {run.held.end - 1} is here")
            if len(run.held) != run.count:
                self.faults.append(f"run {name}: batches overlap")
            covered = Intervals()
            if from_now and gateway not in begun:
                covered.add(0, end if run.first is None else run.first)
            if run.first is not None:
                begun.add(gateway)
            for first, next_ in sorted(run.held.parts + run.gaps.parts + covered.parts):
                covered.add(first, next_)
            causes, holes = self.holes(run, covered, max(end, run.held.end))
            held = sum(overlap(part, (0, end)) for part in run.held.parts)
            runs.append(
                {
                    "gateway": gateway,
                    "run": name,
                    "ended": run.end is not None,
                    "clean": run.end[1] if run.end else None,
                    "expected": end,
                    "held": held,
                    "beyond": len(run.held) - held,
                    "gaps": causes,
                    "missing": [(first, min(next_, end)) for first, next_ in holes if first < end],
                    "beyond_missing": [(max(first, end), next_) for first, next_ in holes if next_ > end],
                    "unsynced": sum(clock == "unsynced" for _, _, clock in run.times()),
                    "corrected": sum(clock == "corrected" for _, _, clock in run.times()),
                }
            )
        missing = sum(total(run["missing"]) for run in runs)
        # Of nothing nothing is missing, which proves nothing: mostly the subscription did not stand.
        proved = any(run["expected"] for run in runs)
        return {
            "complete": missing == 0 and not self.faults and proved,
            "proved": proved,
            "readings": self.readings,
            "backlog": self.backlog,
            "duplicates": self.duplicates,
            "missing": missing,
            "beyond": sum(run["beyond"] for run in runs),
            "beyond_missing": sum(total(run["beyond_missing"]) for run in runs),
            "runs": runs,
            "faults": self.faults,
        }


def in_words(report):
    for run in report["runs"]:
        state = "runs" if not run["ended"] else "ended in order" if run["clean"] else "ended without a stop"
        killed = " up to its recorded end" if run["clean"] is False else ""
        print(f"{run['gateway']} run {run['run']} ({state}): {run['held']} of {run['expected']} readings{killed}")
        for cause, count in sorted(run["gaps"].items()):
            print(f"  {count} will not come: {cause}")
        if run["corrected"] or run["unsynced"]:
            print(f"  stamps of batches: {run['corrected']} corrected, {run['unsynced']} by a clock that was not set")
        for first, next_ in run["missing"]:
            print(f"  missing: {first} to {next_ - 1}")
        if run["beyond"]:
            holes = total(run["beyond_missing"])
            why = ": lost with the kill, or on the way" if holes and not run["clean"] else ""
            print(f"  {run['beyond']} beyond its recorded end, {holes} missing among them{why}")
        for first, next_ in run["beyond_missing"]:
            print(f"  missing beyond it: {first} to {next_ - 1}")
    for fault in report["faults"]:
        print(f"contradiction: {fault}")
    if not report["proved"] and report["readings"]:
        print("NOTHING IS PROVED: all that came lies beyond the recorded end of a run that was killed.")
    elif not report["proved"]:
        print("NOTHING IS PROVED: no reading came, and no record of one. Did the subscription stand, on fieldspool/#?")
    killed = sum(run["clean"] is False for run in report["runs"])
    bound = f"; nothing is proved beyond the recorded end of {killed} run(s) that had no stop" if killed else ""
    print(f"{report['readings']} readings, {report['duplicates']} duplicates dropped, {report['missing']} missing{bound}")


def main():
    codes = __doc__[__doc__.index("Exit code:") : __doc__.index("It needs Python")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=codes)
    parser.add_argument("files", nargs="*", help="files of lines 'TOPIC PAYLOAD'; standard input if none")
    parser.add_argument("--from-now", action="store_true", help="the gateway ran before: expect nothing older")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args()
    receiver = Receiver()
    for stream in [open(name, encoding="utf-8") for name in arguments.files] or [sys.stdin]:
        try:
            for number, line in enumerate(stream, 1):
                topic, _, payload = line.rstrip("\n").partition(" ")
                if not payload or "/meta/" in topic or topic.endswith("/status"):
                    continue
                try:
                    receiver.take(payload)
                except (ValueError, KeyError, TypeError, AttributeError) as fault:
                    receiver.faults.append(f"line {number}, {topic}: not a fieldspool message: {fault!r}")
        except KeyboardInterrupt:
            pass  # the way to end a live subscription; the report follows
    report = receiver.report(arguments.from_now)
    if arguments.json:
        json.dump(report, sys.stdout)
    else:
        in_words(report)
    if report["faults"]:
        return 2
    if not report["proved"]:
        return 3
    return 1 if report["missing"] else 0


if __name__ == "__main__":
    sys.exit(main())
