//! Settings, words of faults, and the promises of the stream and the timer, on pseudo-terminals. A pty has no
//! parity and no wire speed: those are not read back here.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::unistd::ttyname;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fault::remedy_of_absent;
use super::*;

/// A pseudo-terminal with a name: the instrument's end and the path a gateway opens. The port's end stays open
/// here, so that only dropping the master hangs it up.
fn pty() -> (OwnedFd, OwnedFd, PathBuf) {
    let pair = openpty(None, None).expect("the machine has a free pty");
    let path = ttyname(&pair.slave).expect("a pty has a name");
    (pair.master, pair.slave, path)
}

fn settings(path: &std::path::Path) -> PortSettings {
    PortSettings::new(path.display().to_string())
}

#[test]
fn formats_read_back_and_count_their_bits() {
    for (text, bits) in [("8N1", 10), ("8E1", 11), ("7E1", 10), ("8N2", 11), ("8O2", 12)] {
        let format: Format = text.parse().unwrap();
        assert_eq!(format.to_string(), text);
        assert_eq!(format.bits(), bits, "{text}");
    }
    for text in ["", "8N", "9N1", "8X1", "8N3", "8N11", "８N1"] {
        assert!(text.parse::<Format>().is_err(), "{text}");
    }
    assert_eq!(PortSettings::new("/dev/x").character_time(), Duration::from_nanos(1_041_666));
}

#[tokio::test]
async fn a_port_opens_at_every_format_and_carries_bytes_both_ways() {
    for (format, speed) in [("8N1", 9_600), ("8E1", 19_200), ("7E1", 300), ("8N2", 250_000)] {
        let (master, _slave, path) = pty();
        let mut port =
            SerialPort::open(&PortSettings { speed, format: format.parse().unwrap(), ..settings(&path) })
                .unwrap();
        nix::unistd::write(&master, b"instrument").unwrap();
        let mut bytes = [0; 10];
        port.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"instrument");
        port.write_all(b"gateway").await.unwrap();
        port.flush().await.unwrap();
        let mut bytes = [0; 16];
        let n = nix::unistd::read(&master, &mut bytes).unwrap();
        assert_eq!(bytes.get(..n), Some(&b"gateway"[..]));
    }
}

#[tokio::test]
async fn a_port_that_is_gone_is_an_error_and_not_an_endless_empty_read() {
    let (master, _slave, path) = pty();
    let mut port = SerialPort::open(&settings(&path)).unwrap();
    drop(master);
    for _ in 0..3 {
        assert!(port.read(&mut [0; 8]).await.is_err());
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_and_told_who_holds_the_port() {
    let (_master, _slave, path) = pty();
    let _first = SerialPort::open(&settings(&path)).unwrap();
    let fault = SerialPort::open(&settings(&path)).unwrap_err();
    assert_eq!(fault.kind, PortFaultKind::Busy);
    let own_pid = std::process::id();
    assert!(fault.what.contains(&format!("pid {own_pid}")), "{fault}");
    assert!(fault.holders.iter().any(|holder| holder.pid == own_pid && holder.seen));
}

#[tokio::test]
async fn a_port_is_free_again_once_it_is_dropped() {
    let (_master, _slave, path) = pty();
    drop(SerialPort::open(&settings(&path)).unwrap());
    SerialPort::open(&settings(&path)).unwrap();
}

#[test]
fn what_is_not_a_serial_port_is_said_in_words() {
    let absent = examine("/dev/serial/by-id/usb-none".as_ref()).unwrap_err();
    assert_eq!(absent.kind, PortFaultKind::Absent);
    assert!(absent.to_string().contains("does not exist"), "{absent}");
    for (path, word) in [("/tmp", "folder"), ("/proc/self/comm", "file"), ("/dev/null", "not a serial port")]
    {
        let fault = examine(path.as_ref()).unwrap_err();
        assert_eq!(fault.kind, PortFaultKind::NotAPort, "{fault}");
        assert!(fault.what.contains(word), "{fault}");
    }
}

#[test]
fn a_port_of_the_board_that_is_absent_is_no_adapter_that_is_not_plugged_in() {
    let adapters = ["/dev/serial/by-id/usb-a".to_owned()];
    for path in ["/dev/ttyAMA0", "/dev/ttyS9", "/dev/serial0", "/dev/ttymxc2"] {
        let remedy = remedy_of_absent(path.as_ref(), &[]);
        assert!(remedy.contains("enable_uart=1") && !remedy.contains("USB"), "{path}: {remedy}");
        assert!(
            remedy_of_absent(path.as_ref(), &adapters).ends_with("; present are: /dev/serial/by-id/usb-a")
        );
    }
    for path in ["/dev/ttyUSB0", "/dev/ttyACM1", "/dev/serial/by-id/usb-b", "/dev/serial/by-path/pci-0-port0"]
    {
        assert!(
            remedy_of_absent(path.as_ref(), &[]).starts_with("no USB serial adapter is plugged in"),
            "{path}"
        );
        assert_eq!(remedy_of_absent(path.as_ref(), &adapters), "present are: /dev/serial/by-id/usb-a");
    }
    for path in ["/dev/rs485", "/tmp/pty", "/dev/tty"] {
        assert!(remedy_of_absent(path.as_ref(), &[]).starts_with("check the path"), "{path}");
    }
    let absent = examine("/dev/ttyAMA77".as_ref()).unwrap_err();
    assert!(
        absent.to_string().starts_with("/dev/ttyAMA77 does not exist; if that is a port of the board"),
        "{absent}"
    );
}

#[test]
fn the_known_culprits_have_their_own_cure() {
    let holder = |name: &str| Holder { pid: 7, name: name.into(), seen: true };
    let cure = |name| holder(name).remedy("/dev/ttyS0".as_ref());
    assert!(cure("agetty").contains("systemctl disable --now serial-getty@ttyS0.service"));
    assert!(cure("brltty").contains("apt purge brltty"));
    assert!(cure("ModemManager").contains("mask --now ModemManager.service"));
    assert!(cure("screen").contains("kill 7"));
}

#[test]
fn an_unused_port_passes_the_examination() {
    let (_master, _slave, path) = pty();
    assert_eq!(examine(&path), Ok(()));
}

#[test]
fn rs485_on_a_port_that_cannot_is_refused_in_words() {
    let (_master, _slave, path) = pty();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rs485 = Some(Rs485 { before: Duration::ZERO, after: Duration::from_millis(1) });
    let fault =
        runtime.block_on(async { SerialPort::open(&PortSettings { rs485, ..settings(&path) }) }).unwrap_err();
    assert_eq!(fault.kind, PortFaultKind::Refused);
    assert!(fault.remedy.contains("remove `rs485"), "{fault}");
}

#[tokio::test]
async fn a_port_without_low_latency_mode_opens_all_the_same() {
    let (_master, _slave, path) = pty();
    SerialPort::open(&PortSettings { low_latency: true, ..settings(&path) }).unwrap();
}

#[tokio::test]
async fn silence_is_never_short_and_finer_than_the_runtimes_millisecond() {
    let mut timer = PreciseTimer::new().unwrap();
    let gap = Duration::from_micros(1_750);
    let (mut precise, mut runtime) = (Vec::new(), Vec::new());
    for _ in 0..101 {
        let deadline = Instant::now() + gap;
        timer.sleep_until(deadline).await.unwrap();
        precise.push(Instant::now().checked_duration_since(deadline).expect("never early"));
        let deadline = Instant::now() + gap;
        tokio::time::sleep_until(deadline.into()).await;
        runtime.push(Instant::now().saturating_duration_since(deadline));
    }
    // Both are measured in turn, and by their better quarter: a busy machine delays the rest of either.
    let quarter = |mut excess: Vec<Duration>| {
        excess.sort();
        excess.get(25).copied().unwrap()
    };
    let (precise, runtime) = (quarter(precise), quarter(runtime));
    assert!(precise * 2 < runtime, "{precise:?} against {runtime:?}");
}

#[tokio::test]
async fn a_cancelled_wait_does_not_shorten_the_next_one() {
    let mut timer = PreciseTimer::new().unwrap();
    let soon = Instant::now() + Duration::from_millis(2);
    let cancelled = tokio::time::timeout(Duration::from_micros(1), timer.sleep_until(soon)).await;
    assert!(cancelled.is_err() || Instant::now() >= soon);
    let late = Instant::now() + Duration::from_millis(8);
    timer.sleep_until(late).await.unwrap();
    assert!(Instant::now() >= late);
    precise_sleep_until(late).await;
}
