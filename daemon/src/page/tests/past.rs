//! Trends that reach back before a restart.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::*;
use crate::model::Batch;
use crate::spool::ExportQuery;

/// A state directory in which a life before this boot stored `u` and `i`, from 60 s ago to 30 s ago, each 5 s, one
/// block each; the oldest values are 12 and -12.
async fn a_life_before() -> TempDir {
    let state = TempDir::new().expect("folder");
    let opened = Spool::open(SpoolSettings::new(state.path()), Board::default(), stamp).expect("spool");
    let (spool, shape) = (opened.spool, shape("meter-01", &["u", "i"]));
    for (seq, ago_s) in (0..).step_by(2).zip([60_u8, 55, 50, 45, 40, 35, 30]) {
        let value = f32::from(ago_s) / 5.0;
        let mut stored = Batch::clone(&batch(&shape, opened.run, seq, 0, &[value, -value]));
        let wall_us = stamp().wall_us - i64::from(ago_s) * 1_000_000;
        stored.stamp = Stamp { wall_us, mono_us: 900_000_000, boot: BootId(0), ..stamp() };
        spool.append(Arc::new(stored));
        spool.flush(std::time::Instant::now() + SOON).await.expect("stored");
    }
    spool.close(true).await.expect("closed");
    state
}

/// The trend of a headline point in the next snapshot.
async fn trend(stream: &mut Stream) -> serde_json::Value {
    stream.until("snapshot").await;
    stream.until("device").await.data["points"][0]["trend"].clone()
}

#[tokio::test]
async fn after_a_restart_the_trends_reach_back_into_the_life_before_and_show_the_pause() {
    let house = house_of(a_life_before().await, Keep::All, "127.0.0.1:0", Arc::new(stamp)).await;
    // Somebody has changed the order of the points: names count.
    house.live.describe(vec![info("meter-01", &["i", "u"])]);
    let mut stream = Stream::open(&house, None).await;
    assert_eq!(trend(&mut stream).await, json!(null), "nothing was read yet");
    house.live.offer(&batch(&shape("meter-01", &["i", "u"]), RUN, 0, 5, &[230.5; 2]));
    let past = [[-53, -12], [-48, -11], [-43, -10], [-38, -9], [-33, -8], [-28, -7], [-23, -6]];
    let mut expected: Vec<_> = past.iter().map(|&[at, n]| json!([at, f64::from(n)])).collect();
    expected.extend([json!([-18, null]), json!([5, 230.5])]);
    assert_eq!(trend(&mut stream).await, json!(expected), "unasked, what came before");
    house.close().await;
}

#[tokio::test]
async fn readings_of_another_boot_find_their_place_when_somebody_sets_the_clock() {
    let set = Arc::new(AtomicBool::new(false));
    let clock = {
        let set = Arc::clone(&set);
        // Without a clock chip the wall clock is an hour behind at first.
        move || {
            let now = stamp();
            if set.load(Ordering::Relaxed) {
                return now;
            }
            Stamp { clock: ClockQuality::Unsynced, wall_us: now.wall_us - 3_600_000_000, ..now }
        }
    };
    let house = house_of(a_life_before().await, Keep::All, "127.0.0.1:0", Arc::new(clock)).await;
    plant(&house, &["u", "i"]);
    let mut stream = Stream::open(&house, None).await;
    assert_eq!(trend(&mut stream).await, json!([[5, 230.5]]));
    set.store(true, Ordering::Relaxed);
    let filled = trend(&mut stream).await;
    assert_eq!((&filled[0], filled.as_array().map(Vec::len)), (&json!([-53, 12.0]), Some(9)));
    house.close().await;
}

#[tokio::test]
async fn nothing_is_looked_for_where_nothing_is_kept_until_a_reload_keeps_it() {
    let house = house_of(a_life_before().await, Keep::Unsent, "127.0.0.1:0", Arc::new(stamp)).await;
    plant(&house, &["u", "i"]);
    let mut stream = Stream::open(&house, None).await;
    assert_eq!(trend(&mut stream).await, json!([[5, 230.5]]));
    // Questions are answered one by one: after these all that were asked for the viewer would be.
    for _ in 0..20 {
        house.spool.export(ExportQuery::default()).await.expect("readable");
    }
    let mut stream = Stream::open(&house, None).await;
    assert_eq!(trend(&mut stream).await, json!([[5, 230.5]]), "what lies there is no history");
    house.spool.reconfigure(SpoolSettings::new(house.state.path()));
    let mut viewer = Stream::open(&house, None).await;
    let filled = async { while trend(&mut viewer).await.as_array().map(Vec::len) != Some(9) {} };
    timeout(SOON, filled).await.expect("what came before");
    house.close().await;
}
