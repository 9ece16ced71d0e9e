//! Trouble with the disk, under the real binary: sampling goes on, what memory must drop is counted exactly, and the spool is
//! back by itself when the cause goes away.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::{Broker, GATEWAY};
use crate::support::browser::http;
use crate::support::disk::Disk;
use crate::support::faults::Faults;
use crate::support::gateway::Gateway;
use crate::support::peers::ModbusServer;
use crate::support::subscriber::{Message, Subscriber};
use crate::support::{SOON, wait_for};

/// The cause is gone: back within so long.
const HEALED: Duration = Duration::from_secs(60);

/// For everything to arrive on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// Devices on one bus, polled every `period`, `points` registers each.
fn bus(plant: u16, devices: u8, points: u16, period: &str) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "[bus.hall]\nperiod = {period:?}\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {plant}\n"
    );
    for device in 1..=devices {
        writeln!(text, "[bus.hall.device.d{device}]\nunit_id = {device}\n[bus.hall.device.d{device}.points]")
            .unwrap();
        for point in 0..points {
            writeln!(text, "p{point} = {{ input = {} }}", 100 + point).unwrap();
        }
    }
    text
}

fn count(status: &Value, key: &str) -> u64 {
    status["spool"][key].as_u64().unwrap_or_else(|| panic!("{key} of {status}"))
}

/// Readings that the gateway counts as stored in this run.
fn stored(status: &Value) -> u64 {
    count(status, "numbered") - count(status, "open")
}

/// Waits for a state of the spool.
fn wait_state(gateway: &Gateway, state: &str) -> Value {
    gateway.wait_status(&format!("the state {state}"), |s| (s["spool"]["state"] == state).then(|| s.clone()))
}

/// The cause is gone: everything of memory is stored, within a minute, by nobody's help.
fn wait_healed(gateway: &Gateway) -> Value {
    let at_least = count(&gateway.status().expect("alive"), "numbered");
    wait_for("the spool to be back by itself", HEALED, || {
        gateway.status().filter(|s| s["spool"]["state"] == "ok" && stored(s) >= at_least)
    })
}

/// Lets everything arrive at a receiver, with the end of the run; its report, and the status before the stop.
fn let_it_arrive(gateway: &mut Gateway, broker: &mut Broker) -> (Value, Value) {
    broker.run();
    let receiver = Subscriber::start(broker);
    let drained = wait_for("everything to be sent", LONG, || {
        gateway.status().filter(|s| s["uplink"]["connected"] == true && count(s, "waiting") < 1_000)
    });
    let run = drained["gateway"]["run"].as_str().unwrap().to_owned();
    assert_eq!(gateway.stop().code(), Some(0));
    gateway.start();
    receiver.wait("the end of the run", LONG, |messages| {
        let ended = |m: &Message| m.topic.ends_with("/event") && m.json()["ended"] == run.as_str();
        messages.iter().any(ended).then_some(())
    });
    let whole =
        |report: &Value| report["runs"][0]["ended"] == true && report["runs"][0]["missing"] == json!([]);
    wait_for("the rest of its readings", LONG, || Some(receiver.judge()).filter(whole));
    gateway.kill();
    (receiver.judge(), drained)
}

/// The report of the first run.
fn first_run(report: &Value) -> &Value {
    assert_eq!((&report["faults"], &report["missing"]), (&json!([]), &json!(0)), "{report}");
    &report["runs"][0]
}

#[test]
fn a_failed_fsync_is_not_believed_and_what_memory_drops_is_counted_exactly() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    // Eight megabytes of memory hold these readings for some seconds.
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!("nobody_listens = \"hold\"\n{}", bus(plant.port, 8, 125, "20ms")),
    );
    gateway.start();
    gateway.wait_status("stored readings", |s| (stored(s) > 2_000).then_some(()));

    let faults = Faults::on_the_writer(&gateway, "fsync,fdatasync:error=EIO");
    let failing = wait_state(&gateway, "failing");
    let before = stored(&failing);
    let dropped =
        gateway.wait_status("memory to be full", |s| (count(s, "dropped") > 10_000).then(|| s.clone()));
    assert!(
        count(&dropped, "numbered") > count(&failing, "numbered") + 10_000,
        "sampling goes on: {dropped}"
    );
    assert!(dropped["spool"]["unstored_seconds"].as_f64() > Some(1.0), "the exposure is shown: {dropped}");
    let calls = faults.end();

    let healed = wait_healed(&gateway);
    assert!(stored(&healed) > before, "{healed}");
    let dropped = count(&healed, "dropped");
    let (report, _) = let_it_arrive(&mut gateway, &mut broker);
    let run = first_run(&report);
    assert_eq!(run["gaps"], json!({ "overflow": dropped }), "the gaps are what was counted: {report}");
    let held = run["held"].as_u64().unwrap();
    assert_eq!(held + dropped, run["expected"].as_u64().unwrap(), "not one reading more or less: {report}");
    nothing_follows_a_failed_fsync(&calls);
}

/// After a failed fsync of the log its descriptor is closed: not written, and not synced again. And nobody reads the log (for
/// which SQLite opens its index) before it has been written again and synced, which no call here does.
fn nothing_follows_a_failed_fsync(calls: &str) {
    let mut failed = None;
    let mut failures = 0;
    for call in calls.lines() {
        let file = call.split_once('(').and_then(|(_, rest)| rest.split_once('>')).map(|(file, _)| file);
        if failed.is_some() && file == failed {
            assert!(call.starts_with("close("), "after its fsync failed: {call}\n{calls}");
            failed = None;
        } else if call.contains("EIO") && call.contains("-wal") {
            failures += 1;
            failed = file;
        }
        let believed = failures > 0 && call.starts_with("openat(") && call.contains("spool.db-shm\"");
        assert!(!believed, "a log that was not synced is read: {call}\n{calls}");
    }
    assert!(failures > 1, "an fsync of the log failed, and failed again: {calls}");
}

#[test]
fn a_write_that_fails_costs_nothing_stored_and_heals() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!("[spool]\ncommit_every = \"100ms\"\n{}", bus(plant.port, 2, 10, "100ms")),
    );
    gateway.start();
    gateway.wait_status("stored readings", |s| (stored(s) > 200).then_some(()));
    for error in ["EIO", "ENOSPC", "EROFS"] {
        // Not write(2): that would be the log and the wake-ups of other threads too.
        let faults = Faults::on_the_writer(&gateway, &format!("pwrite64:error={error}"));
        let failing = gateway.wait_status(error, |s| (s["spool"]["state"] != "ok").then(|| s.clone()));
        gateway.wait_status("sampling to go on", |s| {
            (count(s, "numbered") > count(&failing, "numbered") + 100).then_some(())
        });
        drop(faults);
        wait_healed(&gateway);
    }
    let (report, status) = let_it_arrive(&mut gateway, &mut broker);
    assert_eq!(count(&status, "dropped") + count(&status, "evicted"), 0, "{status}");
    assert_eq!(first_run(&report)["gaps"], json!({}), "{report}");
}

#[test]
fn a_file_that_takes_nothing_while_its_log_does_is_said_and_the_log_stays_bounded() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    // A commit for each batch: the log is soon long enough to be written back.
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!("[spool]\ncommit_every = \"0s\"\n{}", bus(plant.port, 8, 20, "20ms")),
    );
    gateway.start();
    gateway.wait_status("stored readings", |s| (stored(s) > 200).then_some(()));
    let faults = Faults::on_the_writers_file(&gateway, "spool.db", "fsync,fdatasync:error=EIO");
    wait_for("the failing file to be said", LONG, || {
        gateway.status().filter(|s| s["spool"]["state"] == "failing")
    });
    let log = std::fs::metadata(gateway.var("spool.db-wal")).map_or(0, |log| log.len());
    assert!(log <= 8 << 20, "the log is {log} bytes long");
    drop(faults);
    wait_healed(&gateway);
    let (report, status) = let_it_arrive(&mut gateway, &mut broker);
    assert_eq!(count(&status, "dropped") + count(&status, "evicted"), 0, "{status}");
    assert_eq!(first_run(&report)["gaps"], json!({}), "{report}");
}

#[test]
fn a_disk_that_cannot_be_read_delays_the_backlog_and_loses_none_of_it() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!(
            "nobody_listens = \"hold\"\n[spool]\ncommit_every = \"100ms\"\n{}",
            bus(plant.port, 4, 50, "50ms")
        ),
    );
    gateway.start();
    // More than the reader's cache holds.
    gateway.wait_status("a backlog", |s| (count(s, "waiting") > 60_000).then_some(()));
    let faults = Faults::on_the_reader(&gateway, "pread64:error=EIO");
    broker.run();
    let receiver = Subscriber::start(&broker);
    receiver.wait("live readings meanwhile", SOON, |m| {
        (m.iter().filter(|m| m.topic.contains("/live/")).count() > 50).then_some(())
    });
    wait_for("failed reads", SOON, || (faults.calls().matches("EIO").count() > 2).then_some(()));
    drop(faults);
    wait_for("the backlog to go", Duration::from_secs(90), || {
        gateway.status().filter(|s| s["uplink"]["connected"] == true && count(s, "waiting") < 1_000)
    });
    assert_eq!(gateway.stop().code(), Some(0));
    let report = receiver.judge();
    assert_eq!((&report["missing"], &report["faults"]), (&json!(0), &json!([])), "{report}");
    assert_eq!(report["runs"][0]["gaps"], json!({}), "{report}");
}

#[test]
fn a_disk_that_stalls_two_seconds_at_a_time_costs_no_poll() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut gateway = Gateway::new(&format!(
        "gateway = \"{GATEWAY}\"\n[spool]\ncommit_every = \"100ms\"\n{}",
        bus(plant.port, 4, 10, "1s")
    ));
    gateway.start();
    let before = gateway.wait_status("stored readings", |s| (stored(s) > 100).then(|| s.clone()));
    let faults = Faults::on_the_writer(&gateway, "fsync,fdatasync:delay_enter=2000000");
    wait_for("three stalls", SOON, || (faults.calls().matches("sync(").count() >= 4).then_some(()));
    drop(faults);
    let after = wait_healed(&gateway);
    let missed = |status: &Value| -> Vec<u64> {
        let devices = status["buses"][0]["devices"].as_array().unwrap();
        devices.iter().map(|device| device["missed"].as_u64().unwrap()).collect()
    };
    assert_eq!(missed(&after), missed(&before), "polls were missed while the disk stood still: {after}");
    assert!(count(&after, "numbered") >= count(&before, "numbered") + 4 * 4 * 10, "{after}");
    assert_eq!(count(&after, "dropped"), 0, "{after}");

    // One that lasts is said, although the thread that would say it stands still itself.
    let faults = Faults::on_the_writer(&gateway, "fsync,fdatasync:delay_enter=60000000");
    let stalled = wait_state(&gateway, "stalled");
    assert!(stalled["spool"]["unstored_seconds"].as_f64() > Some(1.0), "the exposure is shown: {stalled}");
    drop(faults);
    wait_healed(&gateway);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_full_disk_still_lets_confirmed_history_make_room() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!("[spool]\ncommit_every = \"100ms\"\n{}", bus(plant.port, 4, 100, "50ms")),
    );
    gateway.launch_on_small_disk("16m");
    let wait = |what: &str, met: &dyn Fn(&Value) -> bool| {
        wait_for(what, HEALED, || gateway.status().filter(|status| met(status)))
    };
    wait("history that is confirmed", &|s| count(s, "confirmed") > 20_000 && stored(s) > 20_000);
    let mut ballast = std::fs::File::create(gateway.inside("ballast")).unwrap();
    let block = vec![0; 64 * 1024];
    while std::io::Write::write_all(&mut ballast, &block).is_ok() {}
    drop(ballast);
    wait("the full disk to be felt", &|_| {
        gateway.log().contains("no space") || gateway.log().contains("full")
    });
    let felt = gateway.status().expect("alive");
    let later = wait("readings to be stored on a full disk", &|s| stored(s) > stored(&felt) + 20_000);
    assert_eq!(count(&later, "dropped") + count(&later, "evicted"), 0, "{later}");
    // And then its file is damaged: a fresh one has room in the reserve, and what was set aside is searched and makes room.
    let spool = std::fs::File::options().write(true).open(gateway.inside("spool.db")).unwrap();
    for page in (0..spool.metadata().unwrap().len() / 1024).step_by(2) {
        spool.write_all_at(&[0xa5; 1024], page * 1024).unwrap();
    }
    let searched = wait("the damaged file to be searched", &|s| {
        // Who reads it finds it.
        gateway.ask(&["spool", "export"]);
        s["spool"]["salvage"]["searching"] == false
    });
    wait("readings to be stored in a fresh file", &|s| stored(s) > stored(&searched) + 20_000);
    wait("the damaged file to go", &|_| {
        std::fs::read_dir(gateway.inside("quarantine")).is_ok_and(|folders| folders.count() == 0)
    });
    std::fs::remove_file(gateway.inside("ballast")).unwrap();
    wait("all to be well", &|s| s["spool"]["state"] == "ok" && count(s, "waiting") < 2_000);
    assert_eq!(gateway.stop().code(), Some(0));
    assert_eq!(receiver.judge()["missing"], json!(0));
}

/// A life with a history that is confirmed; something is done to its spool, and the next begins on a file system of its own on which
/// not a byte is free but what the reserve holds.
fn a_start_on_a_full_disk(damage: impl FnOnce(&std::path::Path), is_damaged: bool) {
    let plant = ModbusServer::tcp();
    plant.tick();
    let broker = Broker::start();
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!("[spool]\ncommit_every = \"100ms\"\n{}", bus(plant.port, 4, 100, "50ms")),
    );
    gateway.start();
    gateway.wait_status("history that is confirmed", |s| (count(s, "confirmed") > 10_000).then_some(()));
    assert_eq!(gateway.stop().code(), Some(0));
    damage(&gateway.var("spool.db"));
    gateway.launch_with(
        "cp -a VAR VAR.before && mount -t tmpfs -o size=32m tmpfs VAR && cp -a --sparse=never VAR.before/. VAR \
         && { cat /dev/zero > VAR/ballast || true; }",
    );
    let wait = |what: &str, met: &dyn Fn(&Value) -> bool| {
        wait_for(what, HEALED, || gateway.status().filter(|status| met(status)))
    };
    let met = wait("readings to be stored on a full disk", &|s| stored(s) > 10_000);
    assert_eq!(count(&met, "dropped") + count(&met, "evicted"), 0, "{met}");
    assert!(!gateway.inside("reserve").exists(), "it was for this");
    // Where it was searched to its end it may be gone by now: the disk is full.
    assert_eq!(!met["spool"]["salvage"].is_null(), is_damaged, "{met}");
    std::fs::remove_file(gateway.inside("ballast")).unwrap();
    wait("all to be well", &|s| s["spool"]["state"] == "ok" && count(s, "waiting") < 2_000);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_start_on_a_full_disk_has_the_reserve_for_opening() {
    // As in a copy that was brought back: SQLite makes the index of the log anew, and needs room for it.
    let index = |file: &std::path::Path| std::fs::remove_file(file.with_file_name("spool.db-shm")).unwrap();
    a_start_on_a_full_disk(index, false);
}

#[test]
fn a_start_on_a_full_disk_has_the_reserve_for_setting_a_damaged_file_aside() {
    let head = |file: &std::path::Path| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[..1024].fill(0);
        std::fs::write(file, bytes).unwrap();
    };
    a_start_on_a_full_disk(head, true);
}

#[test]
fn an_ext4_that_goes_read_only_under_it_is_said_and_costs_nothing_stored() {
    let disk = match Disk::mount(64) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("NOT TRIED, this machine cannot mount a loop device: {why}");
            return;
        }
    };
    let plant = ModbusServer::tcp();
    plant.tick();
    let mut broker = Broker::prepare(|_| {});
    let mut gateway = Gateway::with_uplink(
        &broker,
        &format!("[spool]\ncommit_every = \"100ms\"\n{}", bus(plant.port, 2, 10, "100ms")),
    );
    disk.take_place_of(&gateway.dir.path().join("var"));
    gateway.start();
    // As at a cut: an fsync under way may come back with a success that is none. What had come back before counts.
    let claimed = gateway.wait_status("stored readings", |s| Some(stored(s)).filter(|stored| *stored > 200));
    disk.abort();
    let failing = gateway.wait_status("the disk to be said", |s| {
        ["read-only", "failing"].iter().any(|state| s["spool"]["state"] == *state).then(|| s.clone())
    });
    gateway.wait_status("sampling to go on", |s| {
        (count(s, "numbered") > count(&failing, "numbered") + 100 && stored(s) == stored(&failing))
            .then_some(())
    });
    // Such a file system comes back by mounting it anew, which needs the gateway to let go of it.
    gateway.kill();
    disk.power_on();
    gateway.start();
    wait_healed(&gateway);
    let (report, _) = let_it_arrive(&mut gateway, &mut broker);
    assert!(first_run(&report)["held"].as_u64() >= Some(claimed), "{claimed} were stored: {report}");
}

#[test]
fn a_state_directory_that_is_never_writable_does_not_stop_sampling_or_sending() {
    let plant = ModbusServer::tcp();
    plant.tick();
    let broker = Broker::start();
    let receiver = Subscriber::start(&broker);
    let mut gateway = Gateway::with_uplink(&broker, &bus(plant.port, 2, 10, "200ms"));
    gateway.launch_with("mount -t tmpfs tmpfs VAR && mount -o remount,ro VAR");
    receiver.wait("readings", SOON, |m| {
        (m.iter().filter(|m| m.topic.contains("/live/")).count() > 20).then_some(())
    });
    let status =
        gateway.wait_status("the disk to be said", |s| (!s["spool"]["error"].is_null()).then(|| s.clone()));
    let warnings = status["gateway"]["warnings"].to_string();
    assert!(warnings.contains("cannot be written"), "the volatile run is said: {status}");
    assert_eq!(stored(&status), count(&status, "confirmed"), "nothing is called stored: {status}");
    gateway.stop();
    assert_eq!(receiver.judge()["missing"], json!(0));
}

#[test]
fn a_state_directory_in_memory_is_said_everywhere_or_refused() {
    let plant = ModbusServer::tcp();
    let bus = bus(plant.port, 1, 1, "200ms");
    let mut gateway = Gateway::new(&format!("gateway = \"{GATEWAY}\"\n{bus}"));
    let tmpfs = "mount -t tmpfs tmpfs VAR";
    gateway.launch_with(tmpfs);
    let status = gateway.wait_status("the status", |s| s["spool"]["not_durable"].as_str().map(|_| s.clone()));
    assert!(status["spool"]["not_durable"].as_str().unwrap().contains("tmpfs"), "{status}");
    let words = String::from_utf8(gateway.command(&["status"]).output().unwrap().stdout).unwrap();
    assert!(words.contains("tmpfs"), "{words}");
    let port = gateway.page_port();
    let (_, page) = http(port, "GET", "/api/status", "");
    assert!(page.contains("tmpfs"), "{page}");
    let (_, metrics) = http(port, "GET", "/metrics", "");
    assert!(metrics.contains("fieldspool_spool_durable 0"), "{metrics}");
    assert_eq!(gateway.stop().code(), Some(0));
    let checked = gateway.ask_with(tmpfs, &["check"]);
    assert_eq!((checked.0, checked.1.contains("tmpfs")), (Some(0), true), "{}", checked.1);
    // What is written on an overlay is written into a folder in memory.
    let memory = gateway.dir.path().join("in memory");
    std::fs::create_dir(&memory).unwrap();
    let memory = memory.display();
    let overlay = format!(
        "mount -t tmpfs tmpfs '{memory}' && mkdir '{memory}/upper' '{memory}/work' && mount -t overlay overlay -o \
         'lowerdir=VAR,upperdir={memory}/upper,workdir={memory}/work' VAR"
    );
    let checked = gateway.ask_with(&overlay, &["check"]);
    assert!(checked.1.contains("an overlay over tmpfs"), "{}", checked.1);

    gateway.configure(&format!("gateway = \"{GATEWAY}\"\n[spool]\nrequire_durable = true\n{bus}"));
    for command in ["run", "check"] {
        let (code, words) = gateway.ask_with(tmpfs, &[command]);
        assert_eq!(code, Some(78), "{command}: {words}");
        let lines: Vec<&str> = words.lines().filter(|line| line.contains("tmpfs")).collect();
        assert_eq!(lines.len(), 1, "{command} says it in one line: {words}");
        assert!(lines[0].contains("require_durable"), "{command} says what to do: {words}");
    }
}
