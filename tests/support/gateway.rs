//! The gateway under test: the real binary with its own configuration, state and runtime folders.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::broker::{Broker, GATEWAY, write_private};
use super::{SOON, wait_for};

/// The binary as this test run built it.
pub const BINARY: &str = env!("CARGO_BIN_EXE_fieldspool");

/// A gateway and its folders: `etc` (configuration), `var` (state), `run` (runtime).
pub struct Gateway {
    pub dir: tempfile::TempDir,
    child: Option<Child>,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// Prepares a gateway; `config` is the text of its configuration file. Not started.
    pub fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc", "var", "run"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        let gateway = Self { dir, child: None, log: Arc::default() };
        gateway.configure(config);
        gateway
    }

    /// Prepares a gateway that publishes to `broker` with mutual TLS; `config` is what follows `[uplink]`'s own keys.
    pub fn with_uplink(broker: &Broker, config: &str) -> Self {
        let gateway = Self::new("");
        gateway.take_identity(broker);
        gateway.configure(&format!(
            "gateway = \"{GATEWAY}\"\n[uplink]\nbroker = \"mqtts://localhost:{}\"\nca = \"ca.pem\"\n\
             cert = \"gateway.pem\"\nkey = \"gateway.key\"\n{config}",
            broker.port
        ));
        gateway
    }

    /// Copies the broker's authority and the gateway's certificate and key beside the configuration.
    pub fn take_identity(&self, broker: &Broker) {
        for name in ["ca.pem", "gateway.pem"] {
            fs::copy(broker.file(name), self.etc(name)).unwrap();
        }
        write_private(&self.etc("gateway.key"), &fs::read_to_string(broker.file("gateway.key")).unwrap());
    }

    /// Replaces the configuration file. A page that it says nothing about is on a free port.
    pub fn configure(&self, config: &str) {
        fs::write(self.etc("fieldspool.toml"), config).unwrap();
        let page = if config.contains("[page]") { "" } else { "[page]\nlisten = \"127.0.0.1:0\"\n" };
        fs::write(self.etc("page.toml"), page).unwrap();
    }

    /// A file beside the configuration.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.dir.path().join("etc").join(name)
    }

    /// A file in the state directory.
    pub fn var(&self, name: &str) -> PathBuf {
        self.dir.path().join("var").join(name)
    }

    /// A command of the binary that finds this gateway's folders.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command
            .args(args)
            .env("STATE_DIRECTORY", self.dir.path().join("var"))
            .env("RUNTIME_DIRECTORY", self.dir.path().join("run"))
            .env_remove("JOURNAL_STREAM")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the binary to its end, with `--config` of this gateway.
    pub fn ask(&self, args: &[&str]) -> Output {
        let etc = self.dir.path().join("etc");
        self.command(args).args(["--config", etc.to_str().unwrap()]).output().unwrap()
    }

    /// Starts the daemon and waits until its control socket answers.
    pub fn start(&mut self) {
        self.launch();
        wait_for("the daemon to answer", SOON, || {
            self.assert_alive();
            self.status()
        });
    }

    /// Starts the daemon and does not wait.
    pub fn launch(&mut self) {
        let etc = self.dir.path().join("etc");
        let command = self.command(&["run", "--config", etc.to_str().unwrap()]);
        self.spawn(command);
    }

    /// Starts the daemon with a state directory on a file system of its own, of `size`, in a mount namespace of its own.
    /// [`Gateway::inside`] names its files.
    pub fn launch_on_small_disk(&mut self, size: &str) {
        self.launch_with(&format!("mount -t tmpfs -o size={size} tmpfs VAR"));
    }

    /// Starts the daemon in a mount namespace of its own, after shell commands in which `VAR` is the state directory.
    pub fn launch_with(&mut self, before: &str) {
        let command = self.apart("--mount", before, &["run"]);
        self.spawn(command);
    }

    /// Runs a command of the binary to its end in a mount namespace of its own: its exit code and its words.
    pub fn ask_with(&self, before: &str, args: &[&str]) -> (Option<i32>, String) {
        let output = self.apart("--mount", before, args).output().unwrap();
        let words = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&words).into_owned())
    }

    /// Starts the daemon in a network of its own, in which there is only loopback. [`Gateway::in_its_network`] changes it.
    pub fn launch_without_network(&mut self) {
        let command = self.apart("--net", "ip link set lo up", &["run"]);
        self.spawn(command);
    }

    /// Runs a command in the network of a daemon that was started by [`Gateway::launch_without_network`].
    pub fn in_its_network(&self, command: &[&str]) {
        self.in_its("--net", command);
    }

    /// Runs a command with the mounts of a daemon that was started by [`Gateway::launch_with`].
    pub fn in_its_mounts(&self, command: &[&str]) {
        self.in_its("--mount", command);
    }

    fn in_its(&self, namespace: &str, command: &[&str]) {
        let pid = self.pid().to_string();
        let mut nsenter = Command::new("nsenter");
        let done = nsenter.args(["--target", &pid, "--user", namespace]).args(command).status().unwrap();
        assert!(done.success(), "{command:?}: {done}");
    }

    /// Starts the daemon on a machine that calls itself `id`: with a `/etc` of its own, and nothing else in it.
    pub fn launch_on_machine(&mut self, id: &str) {
        let before = format!("mount -t tmpfs tmpfs /etc && echo {id} > /etc/machine-id");
        let command = self.apart("--mount", &before, &["run"]);
        self.spawn(command);
    }

    /// A command of the binary in a namespace of its own, after shell commands that prepare it.
    fn apart(&self, namespace: &str, before: &str, args: &[&str]) -> Command {
        let etc = self.dir.path().join("etc");
        let before = before.replace("VAR", self.dir.path().join("var").to_str().unwrap());
        let script = format!("{before} && exec {BINARY} {} --config {}", args.join(" "), etc.display());
        let plain = self.command(&[]);
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", namespace, "sh", "-c", &script]);
        for (key, value) in plain.get_envs() {
            match value {
                Some(value) => unshare.env(key, value),
                None => unshare.env_remove(key),
            };
        }
        unshare.stdin(Stdio::null());
        unshare
    }

    /// The port that the page was given.
    pub fn page_port(&self) -> u16 {
        self.wait_log("page");
        let log = self.log();
        let line = log.lines().rev().find(|l| l.contains("127.0.0.1:") && l.contains("page"));
        let digits = line.expect("the page says where it is").split("127.0.0.1:").nth(1).unwrap();
        digits.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a port")
    }

    /// A file of the state directory as the daemon sees it.
    pub fn inside(&self, name: &str) -> PathBuf {
        let var = self.var(name);
        PathBuf::from(format!("/proc/{}/root", self.pid())).join(var.strip_prefix("/").unwrap())
    }

    fn spawn(&mut self, mut command: Command) {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.child = Some(child);
    }

    /// What the daemon says of itself, if it answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = self.command(&["status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
    }

    /// Waits until the daemon's status is as `met` wants it.
    pub fn wait_status<T>(&self, what: &str, met: impl Fn(&serde_json::Value) -> Option<T>) -> T {
        wait_for(what, SOON, || {
            self.assert_alive();
            self.status().and_then(|status| met(&status))
        })
    }

    /// Waits for a text in the log.
    pub fn wait_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), SOON, || self.log().contains(text).then_some(()));
    }

    /// Everything logged so far, all starts together.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().expect("started").id()).unwrap())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Ends it as a power cut of the process would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("started");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops it in order.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait_end(Duration::from_secs(10))
    }

    /// Waits for its end.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("started");
        let log = self.log.clone();
        wait_for(&format!("the daemon to end; log:\n{}", log.lock().unwrap()), limit, || {
            child.try_wait().unwrap()
        })
    }

    fn assert_alive(&self) {
        let pid = self.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!stat.is_empty() && !stat.contains(") Z "), "the daemon ended; its log:\n{}", self.log());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the gateway ---\n{}", self.log());
        }
    }
}
