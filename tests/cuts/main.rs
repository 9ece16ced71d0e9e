//! `make crash`, the part with the real binary: 1 000 times `kill -9`, 300 power cuts of a loop-mounted ext4, judged by an
//! oracle outside the process. What is done and what proves it stands in `mod.rs`.
//!
//!   SEED=n    repeats a campaign's moments as far as the machine's own timing allows; without it a new one, which is printed
//!   KILLS=n, CUTS=n   other numbers
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    dead_code,
    unused_imports
)]
#![allow(clippy::cast_possible_truncation, clippy::format_push_string)]

#[path = "mod.rs"]
mod cuts;
#[path = "../support/record.rs"]
mod record;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use cuts::{Campaign, End, Verdict};

fn main() -> ExitCode {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(Ok(default), |text| text.parse())
            .unwrap_or_else(|_| panic!("{name} is a number"))
    };
    let seed = number("SEED", std::process::id().into());
    let mut passed = true;
    for (end, name, lives) in [(End::Cut, "CUTS", 300), (End::Kill, "KILLS", 1_000)] {
        let lives = number(name, lives) as u32;
        if lives == 0 {
            continue;
        }
        match (Campaign { end, lives, seed, talk: true }).run() {
            Ok(verdict) => {
                println!("{verdict}");
                record(&verdict);
                passed &= verdict.passed();
            }
            Err(why) => {
                println!("no {end}: {why}");
                passed = false;
            }
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Its row in the table of `tests/README.md`.
fn record(verdict: &Verdict) {
    let numbers = [verdict.lives.into(), verdict.seed, verdict.lost];
    let [often, seed, lost] = numbers.map(|number: u64| number.to_string());
    let copies = format!("{} of {} allowed", verdict.worst_copies.0, verdict.worst_copies.1);
    let lost = format!("{lost} of {}", verdict.claimed);
    record::row(&verdict.end.to_string(), &[&often, &seed, &lost, &copies, "`make crash`"]);
}
