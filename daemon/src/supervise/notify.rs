//! What systemd is told: READY, RELOADING, STOPPING, the STATUS line, WATCHDOG, and that opening takes longer.
//!
//! Through libsystemd (feature `systemd`), or by the same datagram written here (sd_notify(3)): newline-separated
//! assignments to the socket in `$NOTIFY_SOCKET`. Without that variable, nothing happens. A message that cannot be
//! sent is not repeated: the next one comes within seconds, and the watchdog tells if none arrives.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::status::{BusStatus, Refusing, Status};

/// Tells systemd that start-up is complete.
pub fn ready() {
    send(&[("READY", "1".into())]);
}

/// Tells systemd that a reload began; [`ready`] ends it. The stamp orders it against the manager's own clock
/// (sd_notify(3), `Type=notify-reload`).
pub fn reloading() {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000 + now.tv_nsec().unsigned_abs() / 1_000);
    send(&[("RELOADING", "1".into()), ("MONOTONIC_USEC", monotonic.to_string())]);
}

/// Tells systemd that the stop began.
pub fn stopping() {
    send(&[("STOPPING", "1".into()), ("STATUS", "stopping".into())]);
}

/// Asks for more time to start or stop, counted from now.
pub fn extend_timeout(by: Duration) {
    send(&[("EXTEND_TIMEOUT_USEC", by.as_micros().to_string())]);
}

/// The line that `systemctl status` shows.
pub fn status(line: &str) {
    send(&[("STATUS", line.to_owned())]);
}

/// All loops made progress.
pub fn alive() {
    send(&[("WATCHDOG", "1".into())]);
}

/// How often systemd wants to hear [`alive`]; `None` if it does not watch this process.
pub fn watchdog_period() -> Option<Duration> {
    let pid = std::env::var("WATCHDOG_PID").ok();
    if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let period: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (period > 0).then(|| Duration::from_micros(period))
}

#[cfg(feature = "systemd")]
fn send(assignments: &[(&str, String)]) {
    // An error means that the manager went away; the next message tries again.
    let _ = systemd::daemon::notify(assignments.iter());
}

#[cfg(not(feature = "systemd"))]
fn send(assignments: &[(&str, String)]) {
    if let Ok(socket) = std::env::var("NOTIFY_SOCKET") {
        // An error means that the manager went away; the next message tries again.
        let _ = datagram(&socket, assignments);
    }
}

/// What libsystemd does with [`send`]: one datagram to a path, or to an abstract name behind `@`.
#[cfg(any(test, not(feature = "systemd")))]
fn datagram(socket: &str, assignments: &[(&str, String)]) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let lines: Vec<String> = assignments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    UnixDatagram::unbound()?.send_to_addr(lines.join("\n").as_bytes(), &address).map(|_| ())
}

/// The STATUS line: is all well, and how much waits. One line of about 100 characters, and of at most
/// [`REFUSAL_MAX`] more while a configuration is refused.
pub fn status_line(status: &Status) -> String {
    let mut line = if status.gateway.idle {
        "idle: nothing is configured; see fieldspool check".into()
    } else {
        work(status)
    };
    if let Some(why) = &status.gateway.config_refused {
        line.push_str("; the newest configuration was refused: ");
        line.extend(
            why.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(REFUSAL_MAX),
        );
    }
    line
}

/// Letters of the reason why a configuration was refused: enough for place, fault and cure.
const REFUSAL_MAX: usize = 300;

fn work(status: &Status) -> String {
    let devices = || status.buses.iter().flat_map(|bus| &bus.devices);
    let silent = devices().filter(|device| device.answering == Some(false)).count();
    let uplink = match (status.uplink.configured, status.uplink.connected) {
        (false, _) => "no server configured",
        (true, true) => match status.uplink.refused.as_ref().map(|refused| refused.what) {
            None => "connected",
            Some(Refusing::All) => "connected, but nothing is taken",
            Some(Refusing::Some | Refusing::About) => "connected, but some messages are refused",
        },
        (true, false) if status.gateway.safe_mode => "connection off",
        (true, false) => "not connected",
    };
    let mode = if status.gateway.safe_mode { "crash loop, only reading and storing; " } else { "" };
    let waiting = status.spool.waiting;
    let total = devices().count();
    let useless = match status.buses.iter().flat_map(BusStatus::useless).count() {
        0 => String::new(),
        some => format!(", {some} without a usable value"),
    };
    let down = match status.buses.iter().filter(|bus| bus.is_down()).count() {
        0 => String::new(),
        1 => ", 1 bus down".to_owned(),
        some => format!(", {some} buses down"),
    };
    let mut line = format!(
        "{mode}{total} devices, {silent} silent{useless}{down}; {uplink}; {waiting} readings waiting to be sent"
    );
    if !matches!(status.spool.state.as_str(), "" | "ok") {
        line.push_str("; storage ");
        line.push_str(&status.spool.state);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::DeviceStatus;

    #[test]
    fn a_message_is_one_datagram_to_a_path_or_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixDatagram};

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let name = format!("fieldspool-test-{}", std::process::id());
        let sockets = [
            (path.clone(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{name}"),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (socket, manager) in sockets {
            datagram(&socket, &[("RELOADING", "1".into()), ("MONOTONIC_USEC", "42".into())]).unwrap();
            let mut message = [0; 100];
            let length = manager.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"RELOADING=1\nMONOTONIC_USEC=42");
        }
        assert!(datagram("/nonexistent/notify", &[("READY", "1".into())]).is_err());
    }

    #[test]
    fn the_status_line_says_what_waits_and_what_is_silent() {
        let mut status = Status::default();
        status.gateway.idle = true;
        assert_eq!(status_line(&status), "idle: nothing is configured; see fieldspool check");
        status.gateway.config_refused = Some("/etc/fieldspool: it is\ngone".to_owned() + &"!".repeat(1_000));
        let line = status_line(&status);
        assert!(
            line.contains("; the newest configuration was refused: /etc/fieldspool: it is gone!!"),
            "{line}"
        );
        assert!(line.len() < 450 && !line.contains('\n'), "{line}");
        status.gateway.config_refused = None;
        status.gateway.idle = false;
        let device = |answering| DeviceStatus { answering, ..DeviceStatus::default() };
        let devices = vec![device(Some(true)), device(Some(false)), device(None)];
        status.buses = vec![BusStatus { up: true, devices, ..BusStatus::default() }];
        status.uplink.configured = true;
        status.spool.waiting = 42;
        status.spool.state = "full".into();
        assert_eq!(
            status_line(&status),
            "3 devices, 1 silent; not connected; 42 readings waiting to be sent; storage full"
        );
        status.uplink.connected = true;
        status.uplink.refused = Some(crate::status::Refused::default());
        assert!(
            status_line(&status).contains("; connected, but nothing is taken; "),
            "{}",
            status_line(&status)
        );
        let device = &mut status.buses[0].devices[0];
        (device.points, device.unusable) = (2, 2);
        assert!(status_line(&status).starts_with("3 devices, 1 silent, 1 without a usable value; "));
        status.buses[0].devices[0].unusable_expected = 2;
        assert!(status_line(&status).starts_with("3 devices, 1 silent; "), "it says so itself");
        let bus = &mut status.buses[0];
        (bus.devices[0].unusable_expected, bus.up, bus.error) = (0, false, Some("no such port".into()));
        assert!(status_line(&status).starts_with("3 devices, 1 silent, 1 bus down; "), "nobody can be asked");
    }
}
