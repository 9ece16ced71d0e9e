//! Modbus servers made of libmodbus: `tests/peers/modbus_server.c`, compiled once and told what to do by its
//! standard input.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// A running server.
pub struct ModbusServer {
    child: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    /// TCP port; 0 for a serial server.
    pub port: u16,
}

impl ModbusServer {
    /// A Modbus TCP server on a free port of 127.0.0.1.
    pub fn tcp() -> Self {
        let mut server = Self::start(&["tcp"]);
        let line = server.line();
        server.port =
            line.strip_prefix("port ").and_then(|p| p.parse().ok()).expect("the server names its port");
        server
    }

    /// A Modbus RTU server, unit 1, on a serial port.
    pub fn rtu(port: &Path, speed: u32) -> Self {
        let server = Self::start(&["rtu", port.to_str().unwrap(), &speed.to_string()]);
        assert_eq!(server.line(), "ready");
        server
    }

    /// Sets one register or bit of a unit.
    pub fn set(&self, table: &str, unit: u8, address: u16, value: u16) {
        assert_eq!(self.ask(&format!("set {table} {unit} {address} {value}")), "ok");
    }

    /// Sets registers that follow each other.
    pub fn set_all(&self, table: &str, unit: u8, address: u16, values: &[u16]) {
        for (address, value) in (address..).zip(values) {
            self.set(table, unit, address, *value);
        }
    }

    /// The unit stops answering.
    pub fn silence(&self, unit: u8) {
        assert_eq!(self.ask(&format!("silence {unit}")), "ok");
    }

    /// The unit answers again.
    pub fn answer(&self, unit: u8) {
        assert_eq!(self.ask(&format!("answer {unit}")), "ok");
    }

    /// From now on input register 100 of each unit counts the unit's requests.
    pub fn tick(&self) {
        assert_eq!(self.ask("tick"), "ok");
    }

    /// Requests seen for a unit.
    pub fn requests(&self, unit: u8) -> u64 {
        self.ask(&format!("requests {unit}")).parse().expect("a number")
    }

    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(program("modbus_server"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Modbus server starts");
        let talk = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, talk: Mutex::new(talk), port: 0 }
    }

    fn ask(&self, command: &str) -> String {
        writeln!(self.talk.lock().unwrap().0, "{command}").expect("the Modbus server listens");
        self.line()
    }

    fn line(&self) -> String {
        let mut line = String::new();
        self.talk.lock().unwrap().1.read_line(&mut line).expect("the Modbus server answers");
        line.trim().to_owned()
    }
}

impl Drop for ModbusServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The compiled program of `tests/peers/NAME.c`.
pub fn program(name: &'static str) -> PathBuf {
    static PROGRAMS: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let compile = || {
        let source = format!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/peers/{}.c"), name);
        let program =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let done = Command::new("cc").args(["-O2", "-o"]).arg(&program).args([&source, "-lmodbus"]).status();
        assert!(done.is_ok_and(|status| status.success()), "cc compiles {source}; it needs libmodbus-dev");
        program
    };
    PROGRAMS.lock().unwrap().entry(name).or_insert_with(compile).clone()
}

/// Two serial ports joined by a null-modem cable made of pseudo-terminals (socat).
pub struct SerialPair {
    child: Child,
    dir: tempfile::TempDir,
}

impl SerialPair {
    /// Makes the pair and waits until both ends are there.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let end = |name: &str| format!("pty,raw,echo=0,link={}", dir.path().join(name).display());
        let child =
            Command::new("socat").args([end("gateway"), end("plant")]).spawn().expect("socat is installed");
        let pair = Self { child, dir };
        super::wait_for("the serial ports", super::SOON, || {
            (pair.gateway().exists() && pair.plant().exists()).then_some(())
        });
        pair
    }

    /// The gateway's end.
    pub fn gateway(&self) -> PathBuf {
        self.dir.path().join("gateway")
    }

    /// The instrument's end.
    pub fn plant(&self) -> PathBuf {
        self.dir.path().join("plant")
    }
}

impl Drop for SerialPair {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
