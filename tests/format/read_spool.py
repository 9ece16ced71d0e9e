#!/usr/bin/env python3
"""Reads a spool's file and prints its readings, oldest first, one JSON object a line.

A second reader of the format, written from its documentation alone: the heads of the files `schema.rs`, `block/mod.rs`,
`block/values.rs`, `dictionary.rs` and `records.rs` in daemon/src/spool. What it prints is what `fieldspool spool export --format jsonl`
prints; a test compares the two. Read only, and only while no daemon runs on the file.

    tests/format/read_spool.py /var/lib/fieldspool/spool.db
"""

import datetime
import json
import sqlite3
import struct
import sys

GAP, PREV, NO_PREV, CLOCK, SPARSE, QUALITY = 1, 2, 4, 8, 16, 32
CAUSES = {
    1: "silent", 2: "link down", 3: "exception", 4: "bad frame", 5: "sentinel",
    6: "not a number", 7: "below limit", 8: "above limit", 9: "unreadable", 10: "overflow",
}
M64 = (1 << 64) - 1


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise ValueError("ends too early")
        self.at += n
        return self.data[self.at - n:self.at]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7

    def zigzag(self):
        number = self.varint()
        return (number >> 1) ^ -(number & 1)


class Before:
    """What is remembered of one point inside a block."""

    def __init__(self):
        self.bits, self.mantissa, self.digits, self.text = 0, 0, None, None

    def value(self, kind, data):
        token = data.take(1)[0]
        mode, parameter = token >> 4, token & 15
        if mode == 7:
            return other(parameter, data)
        if kind == "bool":
            return parameter == 1
        if kind == "text":
            if mode == 6:
                self.text = data.take(data.varint()).decode()
            return self.text
        width = 4 if kind == "f32" else 8
        if mode == 1:
            base = self.mantissa if self.digits == parameter else 0
            self.mantissa, self.digits = base + data.zigzag(), parameter
            value = self.mantissa / 10**parameter
            code = (">f", ">I") if kind == "f32" else (">d", ">Q")
            self.bits = struct.unpack(code[1], struct.pack(code[0], value))[0]
        elif mode in (2, 3):
            kept = data.take(parameter)
            pad = bytes(width - parameter)
            self.bits ^= int.from_bytes(pad + kept if mode == 2 else kept + pad, "big")
            self.digits = None
        elif mode == 4:
            self.bits = (self.bits + data.zigzag()) & M64
        if kind == "int":
            return self.bits - (1 << 64) if self.bits >> 63 else self.bits
        if kind == "uint":
            return self.bits
        return Float(self.bits, kind)


class Float:
    """A float that prints with the fewest digits that read back as the same value."""

    def __init__(self, bits, kind):
        if kind == "f32":
            raw = struct.pack(">I", bits)
            value = struct.unpack(">f", raw)[0]
            texts = (f"{value:.{digits}g}" for digits in range(1, 10))
            self.value = next(float(text) for text in texts if struct.pack(">f", float(text)) == raw)
        else:
            self.value = struct.unpack(">d", struct.pack(">Q", bits))[0]


def other(kind, data):
    if kind == 0:
        return data.take(1)[0] == 1
    if kind == 5:
        return data.take(data.varint()).decode()
    if kind in (3, 4):
        width = 4 if kind == 3 else 8
        return Float(int.from_bytes(data.take(width), "little"), "f32" if kind == 3 else "f64")
    return int.from_bytes(data.take(8), "little", signed=kind == 1)


def quality(code):
    what = code // 2 % 4
    bad = what == 2
    if what == 0:
        word = "good"
    else:
        high, low = divmod(code // 8, 256)
        word = ("bad: " if bad else "uncertain: ") + CAUSES[high] + (f" {low}" if high == 3 else "")
    return word, bad == (code % 2 == 1)


def readings(block, shapes):
    length = struct.unpack_from("<I", block, 8)[0]
    block = block[:length]
    magic, version, _, _, crc, counter, rand, first, end, count, batches, wall_min, _, fingerprint = struct.unpack_from(
        "<4sHHIIIIQQIIqqI", block)
    if magic != b"FSB1" or version != 1:
        raise ValueError("no block, or of a newer version")
    if crc32c(block[16:], crc32c(block[:12])) != crc:
        raise ValueError("checksum")
    data = Bytes(block[68:])
    boots = [data.take(16) for _ in range(data.varint())]
    used = [shapes[data.varint()] for _ in range(data.varint())]
    crcs = b"".join(struct.pack("<I", crc32c(body)) for _, body in used)
    if crc32c(crcs) != fingerprint:
        raise ValueError("another dictionary")
    flags = list(data.take(batches))
    shape = [data.varint() for _ in flags]
    points = []
    for flag, which in zip(flags, shape):
        if flag & SPARSE:
            expected, found = 0, []
            for _ in range(data.varint()):
                found.append(expected + data.zigzag())
                expected = found[-1] + 1
            points.append(found)
        else:
            points.append(list(range(len(used[which][0]["points"]))))
    seqs, expected = [], first
    for flag, own in zip(flags, points):
        seqs.append(expected + (data.zigzag() if flag & GAP else 0))
        expected = seqs[-1] + len(own)
    if expected != end or sum(map(len, points)) != count:
        raise ValueError("numbers that do not fit each other")
    for flag in flags:
        if flag & PREV:
            data.varint()
    walls, wall = [], wall_min
    for _ in flags:
        wall += data.zigzag()
        walls.append(wall)
    for _ in flags:
        data.zigzag()
    clocks, code = [], 0
    for flag in flags:
        if flag & CLOCK:
            code = data.varint()
        boots[code // 4]
        clocks.append(("synced", "unsynced", "corrected")[code % 4])
    codes = []
    for flag, own in zip(flags, points):
        found = [] if flag & QUALITY else [0] * len(own)
        while len(found) < len(own):
            code = data.varint()
            found += [code] * data.varint()
        codes.append(found)
    before = {}
    for at, own in enumerate(points):
        meta = used[shape[at]][0]
        for index, (point, code) in enumerate(zip(own, codes[at])):
            word, has_value = quality(code)
            known = before.setdefault((shape[at], point), Before())
            value = known.value(meta["points"][point]["kind"], data) if has_value else None
            yield {
                "time": time_text(walls[at]), "clock": clocks[at], "gateway": meta["gateway"], "device": meta["device"],
                "point": meta["points"][point]["name"], "value": value.value if isinstance(value, Float) else value,
                "unit": meta["points"][point]["unit"], "quality": word, "run": f"{counter:08}-{rand:08x}",
                "seq": seqs[at] + index,
            }
    if data.at != len(data.data):
        raise ValueError("bytes behind the last value")


def time_text(us):
    epoch = datetime.datetime(1970, 1, 1)
    return (epoch + datetime.timedelta(microseconds=us)).isoformat(timespec="microseconds") + "Z"


def main():
    file = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    ident = (file.execute("PRAGMA application_id").fetchone()[0], file.execute("PRAGMA user_version").fetchone()[0])
    if ident != (0x66737031, 1):
        sys.exit("no spool, or of another version")
    shapes = {}
    for number, body in file.execute("SELECT id, body FROM shape"):
        shapes[number] = (json.loads(body), body.encode())
    for head, body in file.execute("SELECT head, body FROM block ORDER BY number"):
        if not head:
            # Made empty: it was found damaged.
            continue
        for reading in readings(head + body, shapes):
            print(json.dumps(reading, ensure_ascii=False))


main()
