//! The real binary, killed and cut while it polls and publishes to a real mosquitto over mutual TLS.
//!
//! A campaign is a row of lives on one spool: hundreds in `make crash` (`main.rs`), a handful in `make test` (below). A life
//! ends by `kill -9`, or by a cut of the power of the ext4 that the spool is on, at a random moment, the start included; a
//! few end in order. The broker is out of reach in most lives, or else what is lost on disk would have arrived anyway.
//! After the last life everything drains, and `judge` decides; `watch` kept the ledger of what was counted as stored.
//!
//! What would make a green result worthless is refused: no claims, no backlog, no messages.

mod judge;
#[cfg(test)]
mod judged;
mod plant;
mod watch;

use std::fmt;
use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::disk::Disk;
use crate::support::gateway::Gateway;
use crate::support::subscriber::{Message, Subscriber};
use crate::support::{SOON, wait_for};
use plant::{POINTS, Plant, UNITS};
use watch::Watch;

pub use judge::Verdict;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL.
    Kill,
    /// The power of the disk, then SIGKILL.
    Cut,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9 of the real binary",
            Self::Cut => "power cut of an ext4 under the real binary",
        })
    }
}

/// What is to be done.
pub struct Campaign {
    pub end: End,
    /// How often.
    pub lives: u32,
    pub seed: u64,
    /// Say how far it is.
    pub talk: bool,
}

/// With the broker out of reach the backlog grows over up to so many lives.
const AWAY_MOST: u64 = 6;

/// One life of so many lasts longer than confirmations may take to reach the disk.
const LONG_EVERY: u32 = 100;
const LONG: Duration = Duration::from_secs(14);

/// After so many lives one more, which ends in order: those must be in the row too.
const ORDER_EVERY: u32 = 40;

impl Campaign {
    /// Does it, and judges. An error says why it cannot be done here.
    pub fn run(&self) -> Result<Verdict, String> {
        let disk = match self.end {
            End::Kill => None,
            End::Cut => Some(Disk::mount(256)?),
        };
        let (plant, broker) = (Plant::start(), Broker::start());
        let receiver = Subscriber::start(&broker);
        let mut gateway = Gateway::with_uplink(&broker, "");
        if let Some(disk) = &disk {
            disk.take_place_of(&gateway.dir.path().join("var"));
        }
        let watch = Watch::start(gateway.dir.path().join("run/control.sock"));
        let mut random = Random(self.seed);
        let started = Instant::now();
        let mut away = 0;
        for life in 1..=self.lives {
            away = if away > 0 { away - 1 } else { random.below(AWAY_MOST + 1) };
            let near = away == 0;
            live(life, (&mut gateway, &watch), near.then_some(broker.port), (&plant, &mut random));
            if let Some(disk) = &disk {
                watch.close();
                disk.cut();
            }
            gateway.kill();
            if let Some(disk) = &disk {
                disk.power_on();
                watch.open();
            }
            if life % ORDER_EVERY == 0 {
                gateway.start();
                gateway.stop();
            }
            if self.talk && life % 20 == 0 {
                let rate = f64::from(life) / started.elapsed().as_secs_f64();
                println!(
                    "{life} of {}, {rate:.1} a second, {} readings claimed as stored",
                    self.lives,
                    watch.total()
                );
            }
        }
        let took = started.elapsed();
        drain(&mut gateway, &receiver, &config(plant.port, Some(broker.port)));
        let log = wait_for("the subscriber to have all that mosquitto received", SOON, || {
            let log = std::fs::read_to_string(broker.file("log")).unwrap();
            (judge::received(&log) <= judge::arrived(&receiver.messages())).then_some(log)
        });
        let evidence = judge::Evidence {
            messages: &receiver.messages(),
            log: &log,
            claims: &watch.claims(),
            plant: &plant,
        };
        Ok(judge::judge(&evidence, self, took))
    }
}

/// One life, to the moment before its end.
fn live(
    life: u32,
    (gateway, watch): (&mut Gateway, &Watch),
    broker: Option<u16>,
    (plant, random): (&Plant, &mut Random),
) {
    gateway.configure(&config(plant.port, broker));
    // A thousand ends in ten minutes are what the safe mode is for: the count of starts is taken away.
    let _ = std::fs::remove_file(gateway.var("starts"));
    let (asked, stored) = (watch.asked(), watch.total());
    gateway.launch();
    if random.below(8) == 0 {
        // Anywhere in the start: opening, recovery, the first window.
        rest(Duration::from_micros(random.below(200_000)));
        return;
    }
    wait_for("the gateway to answer and to store", SOON, || {
        (watch.asked() > asked && watch.total() > stored).then_some(())
    });
    let long = life % LONG_EVERY == LONG_EVERY / 2;
    rest(Duration::from_micros(random.below(if broker.is_some() { 500_000 } else { 200_000 })));
    if long {
        rest(LONG);
    }
}

/// Four units, polled fifty times a second, stored twenty times a second. `None`: the broker is out of reach.
fn config(plant: u16, broker: Option<u16>) -> String {
    use std::fmt::Write as _;
    // Nobody listens on port 1.
    let mut text = format!(
        "gateway = \"{}\"\n[uplink]\nbroker = \"mqtts://localhost:{}\"\nca = \"ca.pem\"\ncert = \"gateway.pem\"\n\
         key = \"gateway.key\"\nnobody_listens = \"hold\"\n[spool]\ncommit_every = \"50ms\"\n[page]\nlisten = \"127.0.0.1:0\"\n\
         [bus.hall]\nperiod = \"20ms\"\n[bus.hall.link.modbus-tcp]\nhost = \"127.0.0.1\"\nport = {plant}\n",
        crate::support::broker::GATEWAY,
        broker.unwrap_or(1)
    );
    for unit in 1..=UNITS {
        writeln!(text, "[bus.hall.device.d{unit}]\nunit_id = {unit}\n[bus.hall.device.d{unit}.points]")
            .unwrap();
        for point in 0..POINTS {
            writeln!(text, "p{point} = {{ input = {}, type = \"u32\" }}", point * 2).unwrap();
        }
    }
    text
}

/// Lets everything go out, and the ends of all runs: that of the last one comes with the start after it.
fn drain(gateway: &mut Gateway, receiver: &Subscriber, config: &str) {
    const MINUTES: Duration = Duration::from_secs(300);
    gateway.configure(config);
    let _ = std::fs::remove_file(gateway.var("starts"));
    gateway.start();
    wait_for("everything to be sent", MINUTES, || {
        let status = gateway.status()?;
        (status["spool"]["waiting"] == 0 && status["uplink"]["connected"] == true).then_some(())
    });
    let run = gateway.status().expect("alive")["gateway"]["run"].as_str().expect("a run").to_owned();
    assert_eq!(gateway.stop().code(), Some(0));
    gateway.start();
    receiver.wait("the end of the last run", MINUTES, |messages| {
        let ended = |m: &Message| m.topic.ends_with("/event") && m.json()["ended"] == run.as_str();
        messages.iter().rev().any(ended).then_some(())
    });
    gateway.kill();
}

/// Numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Until a random moment: the moment is the experiment, not a wait for something.
#[allow(clippy::disallowed_methods)]
fn rest(time: Duration) {
    std::thread::sleep(time);
}

/// A campaign short enough for every change. `make crash` is the long one.
#[cfg(test)]
mod tests {
    use super::{Campaign, End};

    #[test]
    fn a_few_kills_while_it_polls_and_publishes_lose_nothing() {
        let seed = std::process::id().into();
        let verdict = Campaign { end: End::Kill, lives: 8, seed, talk: false }.run().unwrap();
        assert!(verdict.passed(), "{verdict}");
        println!("{verdict}");
    }

    #[test]
    fn a_few_power_cuts_of_an_ext4_lose_nothing() {
        let seed = std::process::id().into();
        match (Campaign { end: End::Cut, lives: 6, seed, talk: false }).run() {
            Ok(verdict) => {
                assert!(verdict.passed(), "{verdict}");
                println!("{verdict}");
            }
            // Said, and not passed over in silence: make crash refuses to pass without it.
            Err(why) => eprintln!("NO POWER CUT WAS TRIED, this machine cannot mount a loop device: {why}"),
        }
    }
}
