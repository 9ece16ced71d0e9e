//! `fieldspool spool export`: whole, in order, in bounded memory, and at peace with pipes that close, disks that are full and Ctrl-C.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::outage::config;
use crate::support::gateway::{BINARY, Gateway};
use crate::support::peers::ModbusServer;
use crate::support::{SOON, wait_for};

/// A gateway without a broker that has stored some hundred readings.
fn stored() -> (ModbusServer, Gateway) {
    let plant = ModbusServer::tcp();
    plant.tick();
    let config = config(plant.port);
    let bus = config.find("[spool]").expect("a spool");
    let mut gateway = Gateway::new(&format!("gateway = \"plant7-gw1\"\n{}", &config[bus..]));
    gateway.start();
    gateway.wait_status("stored readings", |status| {
        (status["spool"]["waiting"].as_u64() > Some(600)).then_some(())
    });
    (plant, gateway)
}

fn export(gateway: &Gateway, more: &[&str], out: impl Into<Stdio>) -> Child {
    let etc = gateway.etc("");
    let mut command = gateway.command(&["spool", "export", "--config", etc.to_str().expect("text")]);
    command.args(more).stdout(out).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Its exit code, and what it complained of.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    (child.wait().expect("ends").code(), said)
}

/// `run` and `seq` of each line, which must ascend.
fn names(text: &str) -> Vec<(String, u64)> {
    let names: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line))
        .map(|row| (row["run"].as_str().expect("a run").to_owned(), row["seq"].as_u64().expect("a number")))
        .collect();
    assert!(names.is_sorted_by(|one, next| one < next), "in order, and none twice");
    names
}

#[test]
fn an_export_is_whole_with_a_daemon_and_without_and_says_nothing_to_a_script() {
    let (_plant, mut gateway) = stored();
    for running in [true, false] {
        if !running {
            gateway.kill();
        }
        let mut child = export(&gateway, &["--format", "jsonl"], Stdio::piped());
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        let (code, said) = ended(child);
        assert_eq!((code, &*said), (Some(0), ""), "no bar, no word");
        let names = names(&text);
        assert!(names.len() > 600, "{}", names.len());
        assert_eq!((names[0].1, names[names.len() - 1].1), (0, names.len() as u64 - 1), "without a hole");
        let (code, said) = ended(export(&gateway, &["--device", "nope"], Stdio::null()));
        assert_eq!(code, Some(66), "{said}");
        assert!(said.contains("nothing was found of a device \"nope\"; configured are: "), "{said}");
    }
}

#[test]
fn a_device_that_there_is_not_is_answered_with_those_of_the_daemon_and_not_of_another_folder() {
    let (_plant, gateway) = stored();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let folder = elsewhere.path().to_str().expect("text");
    let output =
        gateway.command(&["spool", "export", "--device", "nope", "--config", folder]).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(66), "{said}");
    assert!(said.contains("configured are: "), "{said}");
    let output = gateway.ask(&["spool", "resend"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("4200-4299") && said.contains("--since 2h"), "{said}");
}

#[test]
fn a_person_who_watches_sees_how_far_an_export_is() {
    let (_plant, gateway) = stored();
    let to = gateway.var("export.csv");
    // script(1) gives it a terminal for standard error.
    let line = format!("{BINARY} spool export --config {} > {}", gateway.etc("").display(), to.display());
    let plain = gateway.command(&[]);
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    for (key, value) in plain.get_envs() {
        match value {
            Some(value) => script.env(key, value),
            None => script.env_remove(key),
        };
    }
    let output = script.output().expect("script is installed");
    let seen = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && seen.contains(" %  ") && seen.contains("readings"), "{seen:?}");
    assert!(seen.ends_with("\r\u{1b}[K"), "the line is taken away in the end: {seen:?}");
    let lines = BufReader::new(File::open(&to).expect("written")).lines().count();
    assert!(lines > 600, "{lines}");
}

#[test]
fn a_pipe_that_closes_is_no_fault_a_full_disk_is_and_ctrl_c_ends_it() {
    let (_plant, mut gateway) = stored();
    for running in [true, false] {
        if !running {
            gateway.kill();
        }
        let mut child = export(&gateway, &[], Stdio::piped());
        let mut first = String::new();
        BufReader::with_capacity(64, child.stdout.take().expect("piped"))
            .read_line(&mut first)
            .expect("a line");
        assert!(first.starts_with("time,clock,"), "{first}");
        let (code, said) = ended(child);
        assert_eq!((code, &*said), (Some(0), ""), "as with head");

        let full = File::options().write(true).open("/dev/full").expect("there");
        let (code, said) = ended(export(&gateway, &[], full));
        assert_eq!(code, Some(74), "{said}");
        assert!(said.contains("cannot write the output") && said.lines().count() == 1, "{said}");

        // Nobody takes what it writes: it stands at a full pipe, or has ended if all of it went in.
        let mut child = export(&gateway, &[], Stdio::piped());
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        kill(pid, Signal::SIGINT).expect("signalled");
        wait_for("the export to end", SOON, || child.try_wait().expect("waits"));
    }
    // Neither has harmed anything.
    gateway.start();
    gateway.wait_status("readings", |status| (status["spool"]["waiting"].as_u64() > Some(600)).then_some(()));
}
