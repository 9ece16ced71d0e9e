//! A disk that fails or is slow, for one thread of the gateway's spool: strace attaches to it and answers its system calls.
//! The cause goes away when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::gateway::Gateway;

/// The faults, as long as it lives.
pub struct Faults {
    child: Child,
    dir: tempfile::TempDir,
}

impl Faults {
    /// Injects into the writer of the spool, e.g. `["fsync,fdatasync:error=EIO"]` (strace(1), `-e inject`).
    pub fn on_the_writer(gateway: &Gateway, inject: &str) -> Self {
        Self::attach((gateway, "spool-writer"), inject, &[])
    }

    /// As [`Faults::on_the_writer`], only for calls on one file of the state directory.
    pub fn on_the_writers_file(gateway: &Gateway, file: &str, inject: &str) -> Self {
        Self::attach((gateway, "spool-writer"), inject, &["-P", gateway.var(file).to_str().unwrap()])
    }

    /// Injects into the thread that reads the spool.
    pub fn on_the_reader(gateway: &Gateway, inject: &str) -> Self {
        Self::attach((gateway, "spool-reader"), inject, &[])
    }

    fn attach((gateway, name): (&Gateway, &str), inject: &str, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let calls = inject.split(':').next().unwrap();
        let mut child = Command::new("strace")
            .args(["-y", "-e", &format!("trace={calls},close,openat"), "-e", &format!("inject={inject}")])
            .args(more)
            .args(["-p", &thread(gateway, name).to_string(), "-o"])
            .arg(dir.path().join("calls"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace is installed (apt install strace)");
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        assert!(
            said.contains("attached"),
            "strace cannot attach to the gateway: run the tests as root or set kernel.yama.ptrace_scope=0; it said {said}"
        );
        Self { child, dir }
    }

    /// The calls so far, one a line, as strace writes them.
    pub fn calls(&self) -> String {
        fs::read_to_string(self.calls_file()).unwrap_or_default()
    }

    fn calls_file(&self) -> PathBuf {
        self.dir.path().join("calls")
    }

    /// The cause goes away; every call it saw.
    pub fn end(mut self) -> String {
        self.detach();
        self.calls()
    }

    fn detach(&mut self) {
        // Interrupted, strace lets the thread go.
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = kill(pid, Signal::SIGINT);
        let _ = self.child.wait();
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The thread of this name.
fn thread(gateway: &Gateway, name: &str) -> u32 {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap();
    let named = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|found| found.trim() == name)
    };
    let task = tasks.map_while(Result::ok).find(named).expect("the gateway has this thread");
    task.file_name().to_str().unwrap().parse().unwrap()
}
