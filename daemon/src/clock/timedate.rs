//! Asks systemd-timedated over D-Bus whether the clock is synchronised, where adjtimex(2) may not be called.
//!
//! The unit's sandbox forbids that call, even to read, because the same one sets the clock (`ProtectClock=` refuses all of
//! systemd's group `@clock` with EPERM). A thread asks every [`PAUSE`] until the
//! answer is yes, then ends: a clock that was set once in a boot stays trusted. It also ends with its [`Told`].
//!
//! Of D-Bus this speaks as much as one property needs (D-Bus specification 0.43: authentication EXTERNAL, `Hello`,
//! `org.freedesktop.DBus.Properties.Get`). No bus, no timedated or an answer of another form all mean "not known to be
//! synchronised", which marks stamps `unsynced` and loses nothing.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use nix::unistd::Uid;

/// Where the system's bus listens (D-Bus specification, "well-known message bus instances").
pub(super) const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Between two questions: timedated is started by each and ends by itself after half a minute.
const PAUSE: Duration = Duration::from_secs(10);
/// For each read and write; the first question waits until systemd has started timedated.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a start waits for the first answer: with it, the stamps of a restart are right from the first one on.
pub(super) const AT_START: Duration = Duration::from_millis(500);
/// Longest message that is read; the ones that answer us have under 200 bytes.
const MESSAGE_MAX: usize = 4096;
/// Most messages read for one answer: the reply to `Hello`, a signal or two, ours.
const MESSAGES_MAX: usize = 8;

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// What the thread has learned. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Told {
    synced: Arc<AtomicBool>,
    _stop: SyncSender<()>,
}

impl Told {
    /// Starts to ask on `bus`, and waits at most `patience` for the first answer.
    pub(super) fn start(bus: &Path, patience: Duration) -> io::Result<Self> {
        let synced = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = sync_channel(0);
        let (asked, first) = sync_channel(1);
        let (answer, bus) = (Arc::clone(&synced), bus.to_owned());
        std::thread::Builder::new()
            .name("clock".into())
            .stack_size(256 << 10)
            .spawn(move || ask_until_synced(&bus, &answer, &asked, &stopped))?;
        // Without an answer in time the stamps are unsynced until there is one.
        let _ = first.recv_timeout(patience);
        Ok(Self { synced, _stop: stop })
    }

    /// Whether timedated has said yes.
    pub(super) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }
}

fn ask_until_synced(bus: &Path, synced: &AtomicBool, asked: &SyncSender<()>, stopped: &Receiver<()>) {
    loop {
        match ask(bus) {
            Ok(yes) => synced.store(yes, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "timedated did not say whether the clock is set"),
        }
        // Only the first one is waited for; later ones find the place taken.
        let _ = asked.try_send(());
        if synced.load(Ordering::Relaxed) {
            return;
        }
        if stopped.recv_timeout(PAUSE) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Asks once. Errors of kind `InvalidData` are answers of another form.
fn ask(bus: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(bus)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;

    // EXTERNAL: the kernel tells the bus who we are; the user id agrees. Its text is sent as hexadecimal, where each
    // decimal digit is a 3 and itself.
    let uid: String = Uid::effective().to_string().chars().flat_map(|digit| ['3', digit]).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > 256 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "endless line in the authentication"));
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if !line.starts_with(b"OK ") {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus does not know this user"));
    }
    stream.write_all(b"BEGIN\r\n")?;

    stream.write_all(&HELLO.encode(1, &[]))?;
    stream.write_all(&GET.encode(2, &["org.freedesktop.timedate1", "NTPSynchronized"]))?;

    for _ in 0..MESSAGES_MAX {
        let (kind, body) = message(&mut stream)?;
        match (kind, body.as_slice()) {
            // A variant that holds a boolean: its signature `b`, then, aligned to four, the value.
            (METHOD_RETURN, [1, b'b', 0, _, value @ ..]) if value.len() == 4 => return Ok(value != [0; 4]),
            (ERROR, _) => return Err(io::Error::new(io::ErrorKind::NotFound, "timedated does not answer")),
            // The reply to `Hello`, and the signal that we have a name now.
            _ => {}
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "no reply among the messages of the bus"))
}

/// A method of an object on the bus.
struct Method {
    to: &'static str,
    path: &'static str,
    interface: &'static str,
    member: &'static str,
}

/// Must be the first call on a connection: it gives us a name.
const HELLO: Method = Method {
    to: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};
/// Reads a property of timedated; the bus has systemd start it.
const GET: Method = Method {
    to: "org.freedesktop.timedate1",
    path: "/org/freedesktop/timedate1",
    interface: "org.freedesktop.DBus.Properties",
    member: "Get",
};

impl Method {
    /// A call with string arguments, little endian (D-Bus specification, "message format").
    fn encode(&self, serial: u32, arguments: &[&str]) -> Vec<u8> {
        let mut body = Vec::new();
        for argument in arguments {
            string(&mut body, argument);
        }
        let mut fields = Vec::new();
        let named =
            [(1, b'o', self.path), (2, b's', self.interface), (3, b's', self.member), (6, b's', self.to)];
        for (code, kind, value) in named {
            align(&mut fields, 8);
            fields.extend([code, 1, kind, 0]);
            string(&mut fields, value);
        }
        if !arguments.is_empty() {
            align(&mut fields, 8);
            let signature = "s".repeat(arguments.len());
            fields.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(u8::MAX)]);
            fields.extend(signature.bytes().chain([0]));
        }
        // Little endian, method call, no flags, protocol version 1.
        let mut message = vec![b'l', 1, 0, 1];
        message.extend(length(&body));
        message.extend(serial.to_le_bytes());
        message.extend(length(&fields));
        message.extend(fields);
        align(&mut message, 8);
        message.extend(body);
        message
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    align(out, 4);
    out.extend(length(text.as_bytes()));
    out.extend(text.bytes().chain([0]));
}

fn align(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Reads one message: its kind and its body. The fields of its header do not matter here.
fn message(from: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 16];
    from.read_exact(&mut head)?;
    let [order, kind, _, _, b0, b1, b2, b3, _, _, _, _, f0, f1, f2, f3] = head;
    let number = |bytes: [u8; 4]| {
        let number = if order == b'l' { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let (body, fields) = (number([b0, b1, b2, b3]), number([f0, f1, f2, f3]));
    if body > MESSAGE_MAX || fields > MESSAGE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the bus is too long"));
    }
    let mut skipped = vec![0; fields.next_multiple_of(8)];
    from.read_exact(&mut skipped)?;
    let mut text = vec![0; body];
    from.read_exact(&mut text)?;
    Ok((kind, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let method = Method { to: "a.b", path: "/c", interface: "d.e", member: "F" };
        let call = method.encode(2, &["x", "yz"]);
        let wanted: &[&[u8]] = &[
            b"l\x01\x00\x01", // little endian, method call, no flags, version 1
            &[15, 0, 0, 0],   // body: 4+2, padding 2, 4+3
            &[2, 0, 0, 0],    // serial
            &[72, 0, 0, 0],   // header fields: five, each padded to 16, the last to 8
            b"\x01\x01o\x00\x02\x00\x00\x00/c\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x03\x00\x00\x00d.e\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00F\x00\x00\x00\x00\x00\x00\x00",
            b"\x06\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x02ss\x00",
            b"\x01\x00\x00\x00x\x00\x00\x00",
            b"\x02\x00\x00\x00yz\x00",
        ];
        assert_eq!(call, wanted.concat());
    }

    /// A bus that plays one conversation and then hangs up.
    fn bus(script: &'static [&'static [u8]]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bus");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let heard = peer.read(&mut asked).unwrap();
            assert!(asked[..heard].starts_with(b"\0AUTH EXTERNAL 3"), "{:?}", &asked[..heard]);
            for part in script {
                // The other side may have heard enough.
                if peer.write_all(part).is_err() {
                    return;
                }
            }
            // What it still says is read, so that closing does not reset the answer away.
            while peer.read(&mut asked).is_ok_and(|heard| heard > 0) {}
        });
        (folder, path)
    }

    const OK: &[u8] = b"OK 0123456789abcdef0123456789abcdef\r\n";
    /// A reply to `Hello`: body ":1.7".
    const WELCOME: &[u8] = b"l\x02\x01\x01\x09\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00\x05\x01u\x00\x01\x00\x00\x00\x04\x00\x00\x00:1.7\x00";
    const YES: &[u8] = b"l\x02\x01\x01\x08\x00\x00\x00\x02\x00\x00\x00\x08\x00\x00\x00\x05\x01u\x00\x02\x00\x00\x00\x01b\x00\x00\x01\x00\x00\x00";
    const NO: &[u8] = b"l\x02\x01\x01\x08\x00\x00\x00\x02\x00\x00\x00\x08\x00\x00\x00\x05\x01u\x00\x02\x00\x00\x00\x01b\x00\x00\x00\x00\x00\x00";
    const NOBODY: &[u8] = b"l\x03\x01\x01\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00";
    /// A body of four gigabytes.
    const HUGE: &[u8] = b"l\x02\x01\x01\xff\xff\xff\xff\x02\x00\x00\x00\x08\x00\x00\x00";

    #[test]
    fn timedated_s_yes_and_no_are_understood_and_anything_else_is_an_error() {
        for (script, wanted) in [
            (&[OK, WELCOME, YES] as &'static [&'static [u8]], Some(true)),
            (&[OK, WELCOME, NO], Some(false)),
            (&[OK, WELCOME, NOBODY], None),
            (&[OK, HUGE], None),
            (&[b"REJECTED EXTERNAL\r\n"], None),
            (&[OK, WELCOME, WELCOME, WELCOME, WELCOME, WELCOME, WELCOME, WELCOME, WELCOME, YES], None),
        ] {
            let (_folder, path) = bus(script);
            assert_eq!(ask(&path).ok(), wanted, "{script:?}");
        }
    }

    #[test]
    fn without_a_bus_the_clock_is_not_known_to_be_set() {
        assert!(ask(Path::new("/nonexistent/bus")).is_err());
    }
}
