//! Power cuts, many of them: `make test` makes 20 000, `make crash` 150 000, on three kinds of disk and in an
//! update. Prints the rate with the seed; a schedule that went wrong is named by one number, and `REPLAY=number` runs it again.
//!
//! `CUTS`, `SEED`, `THREADS`, `KIND` and `RECORD=1` say how many, from which number on, on how many threads, on which disk
//! alone, and whether the outcome is written into the table of tests/README.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is what it is for")]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fieldspool_crash::disk::Faults;
use fieldspool_crash::life::{Plan, Tally};
use fieldspool_crash::run::{Failure, Order, Scenes};

#[path = "../../support/record.rs"]
#[allow(unreachable_pub, reason = "it belongs to several tests")]
mod record;

/// Longer than any machine should need.
const MOST: Duration = Duration::from_secs(3600);

/// The same schedules in each `make test`; others by the environment.
const SEED: u64 = 20_261_125;

fn main() -> ExitCode {
    let cuts = number("CUTS").unwrap_or(20_000);
    let seed = number("SEED").unwrap_or(SEED);
    let only = number("KIND").and_then(|kind| usize::try_from(kind).ok());
    let faulty = |faults| Plan { faults, ..Plan::honest() };
    // The disk that keeps its word makes all the cuts; the others a tenth as many again, the update a fortieth.
    let kinds = [
        ("power cut, simulated disk", Plan::honest(), cuts),
        (
            "power cut, simulated disk: 5 % of the syncs fail",
            faulty(Faults { failed_syncs: 0.05, ..Faults::default() }),
            cuts / 10,
        ),
        (
            "power cut, simulated card that lies: 5 % of the syncs do nothing",
            faulty(Faults { dropped_syncs: 0.05, ..Faults::default() }),
            cuts / 10,
        ),
        ("power cut, simulated disk, in an update to a newer schema", Plan::update(), cuts / 40),
    ];
    let scenes = Scenes::make();
    let mut well = true;
    for (at, (what, plan, cuts)) in kinds.into_iter().enumerate() {
        if only.is_some_and(|only| only != at) {
            continue;
        }
        if let Some(seed) = number("REPLAY") {
            let (tally, done) = scenes.schedule(seed, plan);
            println!("{what}, schedule {seed}: {done:?}\n{tally:#?}");
            well &= done.is_ok();
            continue;
        }
        let threads = usize::try_from(number("THREADS").unwrap_or(2)).unwrap_or(2);
        let started = Instant::now();
        let (tally, failure) = scenes.run(Order { first: seed, cuts, threads, most: MOST }, plan);
        say(what, seed, &tally, started.elapsed());
        if let Some(failure) = failure {
            well = false;
            tell(at, &failure);
        } else if number("RECORD").is_some() {
            note(what, seed, &tally);
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn say(what: &str, seed: u64, tally: &Tally, took: Duration) {
    let Tally { cuts, in_recovery, stored, evicted, repeats_worst, .. } = tally;
    let (seconds, rate) = (took.as_secs(), *cuts as f64 / took.as_secs_f64());
    println!(
        "{what}: {cuts} cuts ({in_recovery} while it was opened) in {seconds} s, {rate:.0} a second, seed {seed}"
    );
    println!(
        "  {stored} readings stored, {evicted} evicted; one cut made at most {repeats_worst} come a second time"
    );
    if tally.updates.1 > 0 {
        let (before, made) = tally.updates;
        println!("  {made} updates made; {before} cuts in one left the file of the older version");
    }
    if tally.bad_syncs > 0 {
        println!(
            "  {} syncs did nothing or failed; {} files set aside, {} searched to the end",
            tally.bad_syncs, tally.quarantines, tally.losses.corruptions
        );
        println!("  lost: {}", tally.losses);
        if let (1.., seed) = tally.untold {
            println!("  of most no record tells in schedule {seed}");
        }
    }
}

fn tell(kind: usize, failure: &Failure) {
    eprintln!("  FAILED at cut {} of schedule {}: {}", failure.cuts, failure.seed, failure.what);
    eprintln!(
        "  again: KIND={kind} REPLAY={} cargo test --workspace --all-features --test power_cuts",
        failure.seed
    );
}

fn note(what: &str, seed: u64, tally: &Tally) {
    let lost = tally.losses.to_string();
    let worst = format!("{} readings", tally.repeats_worst);
    record::row(what, &[&format!("{} cuts", tally.cuts), &seed.to_string(), &lost, &worst, "`make crash`"]);
}
