//! What can be typed while the demo runs.

use std::io::BufRead;

use fieldspool_drivers::simulator::{Instrument, Simulation};
use tokio::sync::mpsc;

/// Printed under the addresses, and after something that is not understood.
pub(super) const WORDS: &str = "Type one of these, then Enter:\n  \
    1 incomer   2 compressor   3 tank   4 pump-station   5 weather   6 scale\n      \
    cut its cable, or plug it in again: see the page name it, and the others go on\n  \
    b   stop the broker, or start it again: readings wait in the spool, then all arrive\n  \
    k   kill the daemon with -9 and start it again: what was stored is still there\n      \
    (as often as you like: the demo keeps these from being counted as a crash loop)\n  \
    q   end the demo, like Ctrl-C; nothing stays behind\n";

/// One line typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// End.
    Quit,
    /// Stop or start the broker.
    Broker,
    /// Kill the daemon and start it again.
    Crash,
    /// Silence an instrument, or let it answer again.
    Silence(Instrument),
    /// None of these.
    Unknown,
}

fn read(line: &str) -> Key {
    match line.trim() {
        "q" | "Q" => Key::Quit,
        "b" | "B" => Key::Broker,
        "k" | "K" => Key::Crash,
        text => text
            .parse::<usize>()
            .ok()
            .and_then(|number| Instrument::ALL.get(number.checked_sub(1)?))
            .map_or(Key::Unknown, |instrument| Key::Silence(*instrument)),
    }
}

/// Reads standard input on a thread of its own, which ends with the process. Without a terminal nothing comes.
pub(super) fn listen() -> mpsc::Receiver<Key> {
    let (send, receive) = mpsc::channel(8);
    let typing = move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if send.blocking_send(read(&line)).is_err() {
                return;
            }
        }
    };
    // Without the thread nothing can be typed; Ctrl-C still works.
    let _no_thread = std::thread::Builder::new().name("keyboard".into()).spawn(typing);
    receive
}

/// Silences an instrument, or lets it answer again; what to say about it.
pub(super) fn silenced(simulation: &Simulation, instrument: Instrument) -> String {
    let name = match instrument {
        Instrument::Incomer => "incomer",
        Instrument::Compressor => "compressor",
        Instrument::Tank => "tank",
        Instrument::PumpStation => "pump-station",
        Instrument::WeatherStation => "weather",
        Instrument::Scale => "scale",
    };
    if simulation.toggle(instrument) {
        format!("{name}: cable cut")
    } else {
        format!("{name}: plugged in again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_printed_key_is_understood() {
        assert_eq!(read("q\n"), Key::Quit);
        assert_eq!(read(" b "), Key::Broker);
        assert_eq!(read("k"), Key::Crash);
        assert_eq!(read("1"), Key::Silence(Instrument::Incomer));
        assert_eq!(read("6"), Key::Silence(Instrument::Scale));
        for line in ["0", "7", "", "help", "99999999999999999999"] {
            assert_eq!(read(line), Key::Unknown, "{line}");
        }
    }
}
