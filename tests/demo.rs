//! `fieldspool demo` as somebody types it: it comes up, what it prints works as pasted, and it leaves nothing behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Demo {
    process: Child,
    keyboard: ChildStdin,
    screen: std::sync::mpsc::Receiver<String>,
    page: String,
    listen: String,
    folder: PathBuf,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_fieldspool"))
            .args(["demo", "--duration", "300"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let keyboard = process.stdin.take().expect("stdin is a pipe");
        let out = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let (send, screen) = std::sync::mpsc::sync_channel(256);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut demo = Self {
            process,
            keyboard,
            screen,
            page: String::new(),
            listen: String::new(),
            folder: PathBuf::new(),
        };
        demo.page = demo.printed("http://");
        demo.page.truncate(demo.page.trim_end_matches('/').len());
        demo.listen = demo.printed("mosquitto_sub");
        let config = demo.printed("/").split("  (").next().map(PathBuf::from).expect("a path");
        demo.folder = config.ancestors().nth(2).map(Path::to_path_buf).expect("a folder above config/");
        demo.printed("nothing stays behind");
        demo
    }

    /// Waits for a line with `text` in it; returns it from there on.
    fn printed(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                self.screen.recv_timeout(left).unwrap_or_else(|_| panic!("{text:?} was never printed"));
            if let Some(at) = line.find(text) {
                return line[at..].to_owned();
            }
        }
    }

    fn types(&mut self, key: &str) {
        writeln!(self.keyboard, "{key}").expect("the demo reads its keyboard");
    }

    fn children(&self) -> Vec<u32> {
        let pid = self.process.id();
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().filter_map(|child| child.parse().ok()).collect()
    }

    fn answers(&self, path: &str) -> Option<String> {
        let address = self.page.strip_prefix("http://")?;
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("the demo can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the demo does not end");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Demo {
    /// A test that failed leaves nothing behind either: the demo's children die with it.
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _reaped = self.process.wait();
        let _removed_already = std::fs::remove_dir_all(&self.folder);
    }
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok()
}

#[test]
fn the_demo_shows_readings_survives_its_daemons_death_and_leaves_nothing_behind() {
    let mut demo = Demo::start();
    assert!(demo.answers("/").is_some(), "the page answers");

    // Of what the weather station says first nobody heard the beginning: its first reading is of the next second.
    let pasted = format!("{} -C 60 -W 30", demo.listen);
    let heard = Command::new("sh").args(["-c", &pasted]).output().expect("a shell");
    let heard = String::from_utf8_lossy(&heard.stdout).into_owned();
    for device in ["incomer", "pump-station", "weather", "scale"] {
        assert!(heard.contains(&format!("fieldspool/demo-plant/live/{device} ")), "{device} in:\n{heard}");
    }

    let children = demo.children();
    assert_eq!(children.len(), 2, "broker and daemon");
    // More often than a crash loop takes.
    for _ in 0..5 {
        demo.types("k");
        demo.printed("killed with -9");
        let deadline = Instant::now() + PATIENCE;
        while demo.answers("/healthz").is_none() {
            assert!(Instant::now() < deadline, "the page is back");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    let children = demo.children();
    demo.types("q");
    assert!(demo.ended().success());
    assert!(!children.into_iter().any(is_alive), "children are gone");
    assert!(!demo.folder.exists(), "the folder is gone");
}
