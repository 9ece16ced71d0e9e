//! The daemon as systemd sees it: bad input, reload, a second instance, the end.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::gateway::{BINARY, Gateway};
use crate::support::peers::ModbusServer;
use crate::support::wait_for;

fn config(port: u16, devices: &[u8]) -> String {
    let devices: String = devices
        .iter()
        .map(|unit| {
            format!("[bus.hall.device.d{unit}]\nunit_id = {unit}\npoints = {{ value = {{ input = 100 }} }}\n")
        })
        .collect();
    format!(
        "gateway = \"plant7-gw1\"\n[bus.hall]\nperiod = \"100ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {port}\n{devices}"
    )
}

#[test]
fn without_a_configuration_the_daemon_idles_and_says_so() {
    let mut gateway = Gateway::new("");
    gateway.start();
    assert_eq!(gateway.wait_status("idle", |s| Some(s["gateway"]["idle"].clone())), json!(true));
    gateway.wait_log("nothing is polled");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_malformed_configuration_is_refused_with_file_line_and_column() {
    let mut gateway = Gateway::new("gateway = \"plant7-gw1\"\n[bus.hall]\nperoid = \"1s\"\n");
    gateway.launch();
    assert_eq!(gateway.wait_end(Duration::from_secs(10)).code(), Some(78));
    gateway.wait_log("fieldspool.toml:3:1");
    gateway.wait_log("did you mean");
    let output = gateway.ask(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("fieldspool.toml:3:1") && text.contains("period"), "{text}");
}

#[test]
fn what_this_user_may_not_read_is_not_checked_and_no_fault() {
    let gateway = Gateway::new(
        "gateway = \"plant7-gw1\"\n[uplink]\nbroker = \"mqtts://127.0.0.1:1\"\nuser = \"u\"\npassword_file = \"pw\"\n\
         ca = \"ca.pem\"\n",
    );
    for (name, mode) in [("pw", 0o000), ("ca.pem", 0o000)] {
        std::fs::write(gateway.etc(name), "").unwrap();
        std::fs::set_permissions(gateway.etc(name), Permissions::from_mode(mode)).unwrap();
    }
    // root reads everything, unless the capability to do so is taken away.
    let capabilities = "-dac_override,-dac_read_search";
    let mut check = if nix::unistd::geteuid().is_root() {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(["--inh-caps", capabilities, "--bounding-set", capabilities, BINARY]);
        setpriv
    } else {
        Command::new(BINARY)
    };
    let etc = gateway.dir.path().join("etc");
    let output = check.args(["check", "--config"]).arg(&etc).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["pw", "ca.pem"] {
        let line = format!("{}: not checked: this user may not read it", gateway.etc(name).display());
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.ends_with("ok, 2 files not checked\n"), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_first_configuration_brings_its_gateway_id_and_later_ones_keep_it() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new("");
    gateway.start();
    let host = gateway.wait_status("an id", |s| s["gateway"]["id"].as_str().map(str::to_owned));
    gateway.configure(&config(plant.port, &[1]));
    gateway.signal(Signal::SIGHUP);
    gateway.wait_status("the new id", |s| (s["gateway"]["id"] == "plant7-gw1").then_some(()));
    gateway.wait_status("readings", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    let export = gateway.ask(&["spool", "export", "--format", "jsonl"]);
    let text = String::from_utf8_lossy(&export.stdout).into_owned();
    assert!(
        text.contains("plant7-gw1") && !text.contains(&format!("{host:?}")),
        "they are read under it: {text}"
    );

    gateway.configure(&config(plant.port, &[1]).replace("plant7-gw1", "plant7-gw2"));
    gateway.signal(Signal::SIGHUP);
    let kept = gateway.wait_status("the word that a restart is needed", |s| {
        s["gateway"]["warnings"][0].as_str().map(str::to_owned)
    });
    assert!(kept.contains("gateway stays plant7-gw1"), "{kept}");
    assert_eq!(gateway.status().unwrap()["gateway"]["id"], "plant7-gw1");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_broken_file_on_reload_changes_nothing_and_is_said() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, &[1]));
    gateway.start();
    gateway.wait_status("readings", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    gateway.configure("[bus.hall\n");
    gateway.signal(Signal::SIGHUP);
    gateway.wait_status("the refusal", |s| s["gateway"]["config_refused"].as_str().map(|_| ()));
    let before = plant.requests(1);
    gateway.wait_status("polling goes on", |_| (plant.requests(1) > before + 5).then_some(()));

    gateway.configure(&config(plant.port, &[1, 2]));
    gateway.signal(Signal::SIGHUP);
    gateway
        .wait_status("the new device", |s| (s["buses"][0]["devices"][1]["answering"] == true).then_some(()));
    let status = gateway.status().expect("alive");
    assert_eq!(status["gateway"]["config_refused"], json!(null));
    assert_eq!(status["spool"]["dropped"], json!(0));
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_configuration_that_is_gone_at_a_reload_is_refused_and_an_empty_file_is_taken() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, &[1]));
    gateway.start();
    gateway.wait_status("readings", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    let (etc, away) = (gateway.etc(""), gateway.dir.path().join("away"));
    let refused = |gateway: &Gateway, why: &str| {
        gateway.signal(Signal::SIGHUP);
        let said = gateway.wait_status(why, |s| {
            s["gateway"]["config_refused"].as_str().filter(|words| words.contains(why)).map(str::to_owned)
        });
        assert!(said.contains("idle.toml"), "how to read nothing on purpose: {said}");
        gateway.wait_log(why);
        let before = plant.requests(1);
        gateway.wait_status("polling goes on", |s| {
            (plant.requests(1) > before + 5 && s["gateway"]["idle"] == false).then_some(())
        });
    };
    std::fs::rename(&etc, &away).unwrap();
    refused(&gateway, "the configuration folder is gone");
    let words = gateway.command(&["status"]).output().unwrap();
    let words = String::from_utf8_lossy(&words.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("the configuration folder is gone; bring it back"), "{words}");
    assert!(!words.contains("fieldspool check"), "it does not know what was: {words}");
    // Another folder without a file.
    std::fs::create_dir(&etc).unwrap();
    refused(&gateway, "no configuration file (*.toml) is left");
    std::fs::write(gateway.etc("idle.toml"), "").unwrap();
    gateway.signal(Signal::SIGHUP);
    gateway.wait_status("it idles as it was told to", |s| {
        (s["gateway"]["idle"] == true && s["gateway"]["config_refused"].is_null()).then_some(())
    });
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_mount_that_is_lost_over_another_configuration_does_not_change_what_is_polled() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, &[1]));
    let (etc, disk) = (gateway.etc(""), gateway.dir.path().join("disk"));
    let (etc, disk) = (etc.to_str().unwrap(), disk.to_str().unwrap());
    std::fs::rename(etc, disk).unwrap();
    std::fs::create_dir(etc).unwrap();
    // What the image brought.
    gateway.configure(&config(plant.port, &[2]));
    gateway.launch_with(&format!("mount --bind {disk} {etc}"));
    gateway.wait_status("readings", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    gateway.in_its_mounts(&["umount", "--lazy", etc]);
    gateway.signal(Signal::SIGHUP);
    let said =
        gateway.wait_status("the refusal", |s| s["gateway"]["config_refused"].as_str().map(str::to_owned));
    assert!(said.contains(&format!("what was mounted on {} is gone", etc.trim_end_matches('/'))), "{said}");
    let before = plant.requests(1);
    gateway.wait_status("polling goes on", |_| (plant.requests(1) > before + 5).then_some(()));
    assert_eq!(plant.requests(2), 0, "what lies under the mount is not taken");
    gateway.in_its_mounts(&["mount", "--bind", disk, etc]);
    gateway.signal(Signal::SIGHUP);
    gateway.wait_status("it is back", |s| s["gateway"]["config_refused"].is_null().then_some(()));
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, &[1]));
    gateway.start();
    let second = gateway.ask(&["run"]);
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("in use by another fieldspool"),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
    gateway.wait_status("the first goes on", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_spool_file_that_is_garbage_is_set_aside_and_sampling_goes_on() {
    let plant = ModbusServer::tcp();
    let mut gateway = Gateway::new(&config(plant.port, &[1]));
    gateway.start();
    gateway.wait_status("readings", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    gateway.stop();
    let spool = std::fs::read_dir(gateway.var(""))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "sqlite" || e == "db"))
        .expect("a spool file");
    std::fs::write(&spool, "this is not a database, it is a letter to my grandmother".repeat(200)).unwrap();
    for command in ["status", "export"] {
        let output = gateway.ask(&["spool", command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(74), "{command}: {said}");
        assert!(said.contains("start the daemon: it sets the file aside and saves"), "{command}: {said}");
    }
    gateway.start();
    gateway.wait_status("readings again", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    assert!(gateway.var("quarantine").exists(), "the damaged file is kept");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_stop_takes_less_than_five_seconds_even_with_a_broker_that_never_answers() {
    let plant = ModbusServer::tcp();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut gateway = Gateway::new(&format!(
        "{}[uplink]\nbroker = \"mqtt://127.0.0.1:{port}\"\n",
        config(plant.port, &[1])
    ));
    gateway.start();
    gateway.wait_status("readings", |s| s["spool"]["numbered"].as_u64().filter(|n| *n > 5));
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.wait_end(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn a_serial_port_that_is_absent_is_said_with_what_to_do() {
    let mut gateway = Gateway::new(
        "gateway = \"plant7-gw1\"\n[bus.hall.link.modbus-rtu]\nport = \"/dev/ttyNOTHERE\"\nspeed = 9600\n\
         [bus.hall.device.d1]\nunit_id = 1\npoints = { value = { input = 0 } }\n",
    );
    gateway.start();
    let words = gateway.wait_status("the reason", |s| s["buses"][0]["error"].as_str().map(str::to_owned));
    assert!(words.contains("/dev/ttyNOTHERE"), "{words}");
    let output = gateway.ask(&["read", "hall", "d1"]);
    let through_the_daemon = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(through_the_daemon, (Some(69), format!("fieldspool: {words}\n")));
    assert_eq!(gateway.stop().code(), Some(0));
    let output = gateway.ask(&["read", "hall", "d1"]);
    let alone = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), alone), through_the_daemon, "and without it the same");
}

#[test]
fn a_full_disk_costs_no_stored_reading_and_heals_by_itself() {
    let plant = ModbusServer::tcp();
    // Many commits: the log has room of its own, and the disk is missed only when that is used up.
    let quick = config(plant.port, &[1, 2, 3, 4, 5]).replace("100ms", "20ms");
    let mut gateway = Gateway::new(&format!("{quick}[spool]\ncommit_every = \"20ms\"\n"));
    gateway.launch_on_small_disk("16m");
    let alive = |what: &str, met: &dyn Fn(&serde_json::Value) -> bool| {
        wait_for(what, Duration::from_secs(70), || gateway.status().filter(|status| met(&status["spool"])))
    };
    let count = |spool: &serde_json::Value, key: &str| spool[key].as_u64().unwrap_or(0);
    alive("stored readings", &|spool| count(spool, "waiting") > 200);
    let mut ballast = std::fs::File::create(gateway.inside("ballast")).unwrap();
    let block = vec![0; 64 * 1024];
    while ballast.write_all(&block).is_ok() {}
    let full = alive("the full disk to be said", &|spool| spool["state"] == "full");
    assert_eq!(full["spool"]["hours_until_full"], json!(0.0), "whatever the cap would allow: {full}");
    let numbered = count(&full["spool"], "numbered");
    let later = alive("sampling to go on", &|spool| count(spool, "numbered") > numbered + 500);
    assert_eq!(later["spool"]["evicted"], json!(0), "stored readings stay: {later}");
    drop(ballast);
    std::fs::remove_file(gateway.inside("ballast")).unwrap();
    let healed =
        alive("the spool to store again", &|spool| spool["state"] == "ok" && count(spool, "open") < 100);
    assert_eq!(healed["spool"]["evicted"], json!(0), "{healed}");
    assert_eq!(healed["spool"]["dropped"], json!(0), "{healed}");
    let spool = &healed["spool"];
    assert_eq!(count(spool, "numbered"), count(spool, "waiting") + count(spool, "open"), "{healed}");
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn after_five_starts_without_a_stop_it_only_samples_and_stores_until_it_is_stopped_in_order() {
    let plant = ModbusServer::tcp();
    let uplink = "[uplink]\nbroker = \"mqtt://127.0.0.1:1\"\n";
    let mut gateway = Gateway::new(&format!("{}{uplink}", config(plant.port, &[1])));
    let safe_mode = |s: &serde_json::Value| s["gateway"]["safe_mode"].as_bool();
    for _ in 0..4 {
        gateway.start();
        assert!(!gateway.wait_status("its mode", safe_mode));
        gateway.kill();
    }
    gateway.start();
    assert!(gateway.wait_status("its mode", safe_mode));
    gateway.wait_log("only sampling and storing");
    let stored = |s: &serde_json::Value| s["spool"]["waiting"].as_u64();
    let before = gateway.wait_status("what waits", stored);
    gateway.wait_status("more is stored", |s| stored(s).filter(|now| *now > before));
    assert_eq!(gateway.status().unwrap()["uplink"]["connects"], 0, "nothing is sent");
    gateway.wait_log("5 starts in a row, none of which lasted 10 min");
    let words = String::from_utf8_lossy(&gateway.ask(&["status"]).stdout).into_owned();
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let server =
        "Server connection to 127.0.0.1:1 is off after 5 starts in a row, none of which lasted 10 min";
    assert!(words.contains(server) && words.contains("restart fieldspool\" leaves this state"), "{words}");
    assert_eq!(gateway.stop().code(), Some(0));
    gateway.start();
    assert!(!gateway.wait_status("its mode", safe_mode));
    gateway.wait_status("an attempt to send", |s| s["uplink"]["connects"].as_u64().filter(|n| *n > 0));
}

#[test]
fn a_copied_card_is_said_until_it_gets_an_id_of_its_own() {
    let config = |id: &str| format!("gateway = \"{id}\"\n[uplink]\nbroker = \"mqtt://127.0.0.1:1\"\n");
    let mut gateway = Gateway::new(&config("plant7-gw1"));
    let warnings = |s: &serde_json::Value| Some(s["gateway"]["warnings"].as_array()?.len());
    let machines = ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"];
    for (machine, id, expected) in
        [(0, "plant7-gw1", 0), (1, "plant7-gw1", 1), (1, "plant7-gw1", 1), (1, "plant7-gw2", 0)]
    {
        gateway.configure(&config(id));
        gateway.launch_on_machine(machines[machine]);
        assert_eq!(gateway.wait_status("its warnings", warnings), expected, "{id} on machine {machine}");
        assert_eq!(gateway.stop().code(), Some(0));
    }
    gateway.wait_log("The gateway id plant7-gw1 was used on another machine before");
}
