//! The ledger outside the process: asks the gateway's control socket again and again what it counts as stored, and
//! writes down the most it ever claimed of each run. What was answered too late to be written down is not held against it.
//!
//! It is closed before the power of a disk is cut. An fsync that is under way when the file system is shut down may return
//! success for what is never written: a bare writer on Linux 6.18 saw it in 35 of 250 cuts, always for the one fsync that
//! returned after the cut had begun, and never for one that had returned before. With a real cut nobody hears that answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// run → readings from 0 on that the gateway said are stored.
pub type Claims = BTreeMap<String, u64>;

/// Asks until dropped, whether a gateway is there or not.
pub struct Watch {
    claims: Arc<Mutex<Claims>>,
    asked: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Watches the gateway with this control socket.
    pub fn start(socket: PathBuf) -> Self {
        let mut watch = Self {
            claims: Arc::default(),
            asked: Arc::default(),
            closed: Arc::default(),
            stop: Arc::default(),
            thread: None,
        };
        let (claims, asked) = (watch.claims.clone(), watch.asked.clone());
        let (closed, stop) = (watch.closed.clone(), watch.stop.clone());
        watch.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                if let Some((run, stored)) = ask(&socket) {
                    let mut claims = claims.lock().unwrap();
                    if !closed.load(Ordering::SeqCst) {
                        let most = claims.entry(run).or_default();
                        *most = stored.max(*most);
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                }
                super::rest(Duration::from_millis(2));
            }
        }));
        watch
    }

    /// From when this returns until [`Watch::open`], nothing is written down.
    pub fn close(&self) {
        let _claims = self.claims.lock().unwrap();
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Writes down again.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Answers so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// What was claimed so far.
    pub fn claims(&self) -> Claims {
        self.claims.lock().unwrap().clone()
    }

    /// All readings claimed so far.
    pub fn total(&self) -> u64 {
        self.claims.lock().unwrap().values().sum()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Run, and readings stored of it; `None` where nobody answers, or only half.
fn ask(socket: &Path) -> Option<(String, u64)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"{\"do\":\"status\"}\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let answer: Value = serde_json::from_str(&line).ok()?;
    let status = &answer["item"];
    let spool = &status["spool"];
    let stored = spool["numbered"].as_u64()?.checked_sub(spool["open"].as_u64()?)?;
    Some((status["gateway"]["run"].as_str()?.to_owned(), stored))
}
