//! Fills the trends with what the spool holds of the time before this start, once the first viewer has come.
//!
//! One question at a time, each at most a block or 100 ms of the reader, with a pause after it that is longer than the question:
//! sampling and commits do not wait for it. The newest ten minutes come first, then what slower points show, two hours at
//! most. It is given up after a minute, at a file that cannot be read, and is not done for a viewer who comes while `keep = "unsent"`
//! holds, where nothing is kept. A gateway that nobody looks at never reads its past.
//!
//! How it fails: a trend begins later. Readings of an earlier boot have their place only by the wall clock: if nobody has set
//! it yet they are left out, and looked for again when it is set within ten minutes.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Sources;
use crate::live::past::Past;
use crate::model::{ClockQuality, Stamp};
use crate::spool::{ExportQuery, Keep};

/// How far back each turn reaches, s: what a trend shows of a point polled every 5 s or faster, 20 s, each minute.
const STRETCHES_S: [u64; 3] = [600, 2400, 7200];

/// All of it is given up after this.
const WITHIN: Duration = Duration::from_secs(60);

/// A clock that is set later than this after the start changes no trend.
const CLOCK_WITHIN: Duration = Duration::from_secs(600);

/// Between two looks at something that comes by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The pause after a question, as a multiple of the question.
const PAUSES: u32 = 4;

/// Runs until the trends are filled, or until `stop`.
pub(super) async fn run(sources: Sources, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = fill(&sources) => {}
    }
}

async fn fill(sources: &Sources) {
    // A reload may change what is kept: it counts when somebody looks.
    loop {
        sources.live.viewed().await;
        if sources.spool.keep() != Keep::Unsent {
            break;
        }
    }
    let mut past = loop {
        match Past::of(&sources.live) {
            Some(past) => break past,
            None => sleep(LOOK_EVERY).await,
        }
    };
    let trusted = |now: &Stamp| now.clock != ClockQuality::Unsynced;
    let mut now = (sources.now)();
    turn(sources, &mut past, &now).await;
    let until = Instant::now() + CLOCK_WITHIN;
    if trusted(&now) {
        return;
    }
    while !trusted(&now) && Instant::now() < until {
        sleep(LOOK_EVERY).await;
        now = (sources.now)();
    }
    if trusted(&now) {
        turn(sources, &mut past, &now).await;
    }
}

async fn turn(sources: &Sources, past: &mut Past, now: &Stamp) {
    let deadline = Instant::now() + WITHIN;
    let (mut to_us, mut reached_s) = (now.wall_us, 0);
    for stretch_s in STRETCHES_S {
        if past.lacks_s() <= reached_s {
            break;
        }
        let stretch_us = i64::try_from(stretch_s * 1_000_000).unwrap_or(i64::MAX);
        let from_us = now.wall_us.saturating_sub(stretch_us);
        past.begin();
        let whole = stretch(sources, past, now, (from_us, to_us), deadline).await;
        past.end(!whole);
        if !whole {
            break;
        }
        (to_us, reached_s) = (from_us, stretch_s);
    }
    past.show();
}

/// Reads from one wall clock to another; whether it came to the end.
async fn stretch(
    sources: &Sources,
    past: &mut Past,
    now: &Stamp,
    (from_us, to_us): (i64, i64),
    deadline: Instant,
) -> bool {
    let asked =
        ExportQuery { from_us: Some(from_us), to_us: Some(to_us), glance: true, ..ExportQuery::default() };
    let mut query = asked.clone();
    loop {
        let began = Instant::now();
        if began >= deadline {
            return false;
        }
        // What is wrong with the file is said where it matters.
        let Ok(page) = sources.spool.export(query).await else { return false };
        for batch in &page.batches {
            if let Some(at_s) = running_s(now, &batch.stamp) {
                past.take(batch, at_s);
            }
        }
        if page.next.is_none() {
            return true;
        }
        query = ExportQuery { after: page.next, ..asked.clone() };
        drop(page);
        sleep(began.elapsed() * PAUSES).await;
    }
}

/// A stamp as running time of this boot, s, negative before it; `None` if nobody can tell.
fn running_s(now: &Stamp, stamp: &Stamp) -> Option<i32> {
    let us = |mono_us: u64| i64::try_from(mono_us).ok();
    let mono_us = if stamp.boot == now.boot {
        us(stamp.mono_us)?
    } else if [now, stamp].iter().all(|stamp| stamp.clock != ClockQuality::Unsynced) {
        us(now.mono_us)?.checked_sub(now.wall_us.checked_sub(stamp.wall_us)?)?
    } else {
        return None;
    };
    i32::try_from(mono_us.div_euclid(1_000_000)).ok()
}
