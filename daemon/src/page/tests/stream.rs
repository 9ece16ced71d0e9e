//! The event stream: nothing twice, no hole, and what cannot be had is said.

use super::*;

/// Every seq of a `readings` event.
fn seqs(event: &Event) -> Vec<u64> {
    let batches = event.data["batches"].as_array().expect("batches");
    let stretch = |batch: &serde_json::Value| {
        let (seq, n) = (batch["seq"].as_u64().expect("seq"), batch["n"].as_u64().expect("n"));
        seq..seq + n
    };
    batches.iter().flat_map(stretch).collect()
}

#[tokio::test]
async fn a_viewer_that_comes_back_goes_on_without_a_hole() {
    let house = house("127.0.0.1:0").await;
    let shape = plant(&house, &["u", "i"]);
    let mut stream = Stream::open(&house, None).await;
    let ready = stream.until("ready").await;
    assert_eq!(ready.id.as_deref(), Some(&*format!("{RUN}:2")));
    let mut seen = Vec::new();
    let mut last = String::new();
    for seq in (2..60).step_by(2) {
        house.live.offer(&batch(&shape, RUN, seq, 6, &[1.0, 2.0]));
        if seq % 20 == 0 {
            // The phone sleeps; readings go on.
            drop(stream);
            house.live.offer(&batch(&shape, RUN, 60 + seq, 6, &[1.0, 2.0]));
            stream = Stream::open(&house, (!last.is_empty()).then_some(&last)).await;
            break;
        }
        let event = stream.until("readings").await;
        seen.extend(seqs(&event));
        last = event.id.expect("id");
    }
    // The offer after a hole in numbering begins the ring anew: that is said, not passed over.
    let gap = stream.until("gap").await;
    assert_eq!(gap.data["why"], "too_old");
    assert_eq!(seen, (2..20).collect::<Vec<_>>());
    stream.until("ready").await;
    for seq in (82..100).step_by(2) {
        house.live.offer(&batch(&shape, RUN, seq, 7, &[1.0, 2.0]));
    }
    let event = stream.until("readings").await;
    assert_eq!(seqs(&event).first(), Some(&82));
    let (id, mut seen) = (event.id.clone().expect("id"), seqs(&event));
    drop(stream);
    for seq in (100..140).step_by(2) {
        house.live.offer(&batch(&shape, RUN, seq, 8, &[1.0, 2.0]));
    }
    let mut stream = Stream::open(&house, Some(&id)).await;
    while seen.last() != Some(&139) {
        seen.extend(seqs(&stream.until("readings").await));
    }
    assert_eq!(seen, (82..140).collect::<Vec<_>>(), "nothing missing, nothing twice");
    house.close().await;
}

#[tokio::test]
async fn after_a_restart_of_the_daemon_the_gap_is_said_and_a_snapshot_follows() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let before = format!("{}:77", other_run());
    let mut stream = Stream::open(&house, Some(&before)).await;
    let gap = stream.until("gap").await;
    assert_eq!(gap.data["why"], "restarted");
    assert_eq!((&gap.data["from"], &gap.data["to"]), (&before.into(), &format!("{RUN}:1").into()));
    let device = stream.until("device").await;
    assert_eq!(device.data["points"][0]["value"], 230.5);
    assert_eq!(stream.until("ready").await.id, Some(format!("{RUN}:1")));
    house.close().await;
}

#[tokio::test]
async fn a_viewer_that_was_there_before_the_first_reading_sees_the_run_from_its_beginning() {
    let house = house("127.0.0.1:0").await;
    house.live.describe(vec![info("meter-01", &["u"])]);
    let mut stream = Stream::open(&house, None).await;
    assert_eq!(stream.until("ready").await.id, None);
    let shape = shape("meter-01", &["u"]);
    house.live.offer(&batch(&shape, RUN, 0, 1, &[1.5]));
    let event = stream.until("readings").await;
    assert_eq!((event.data["from"].as_u64(), event.data["to"].as_u64()), (Some(0), Some(1)));
    assert_eq!(event.data["batches"][0]["points"]["u"], 1.5);
    house.close().await;
}

#[tokio::test]
async fn a_reload_sends_the_new_picture() {
    let house = house("127.0.0.1:0").await;
    plant(&house, &["u"]);
    let mut stream = Stream::open(&house, None).await;
    stream.until("ready").await;
    house.live.describe(vec![info("meter-01", &["u"]), info("meter-02", &["p"])]);
    assert_eq!(stream.until("snapshot").await.data["devices"], 2);
    assert_eq!(stream.until("device").await.data["points"][0]["value"], 230.5, "values stay");
    assert_eq!(stream.until("device").await.data["device"], "meter-02");
    house.close().await;
}

#[tokio::test]
async fn a_large_device_comes_in_pieces() {
    let house = house("127.0.0.1:0").await;
    let names: Vec<String> = (0..250).map(|i| format!("p{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    plant(&house, &names);
    let mut stream = Stream::open(&house, None).await;
    let mut points = 0;
    for first in [0, 100, 200] {
        let piece = stream.until("device").await.data;
        assert_eq!(piece["first"], first);
        points += piece["points"].as_array().expect("points").len();
    }
    assert_eq!(points, 250);
    let readings = house.json("/api/readings").await;
    assert_eq!(readings["devices"][0]["points"].as_array().map(Vec::len), Some(250));
    house.close().await;
}

#[tokio::test]
async fn a_viewer_that_does_not_read_piles_up_nothing_and_is_told_of_the_gap() {
    let house = house("127.0.0.1:0").await;
    let names: Vec<String> = (0..500).map(|i| format!("point_with_a_long_name_{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let shape = plant(&house, &names);
    let mut stream = Stream::open(&house, None).await;
    stream.until("ready").await;
    let values = vec![1.25; 500];
    let (mut seq, mut at_s) = (500, 6);
    // Not a byte is read while far more is read from the plant than ring, socket and server can hold.
    for _ in 0..2000 {
        house.live.offer(&batch(&shape, RUN, seq, at_s, &values));
        (seq, at_s) = (seq + 500, at_s + 1);
        tokio::task::yield_now().await;
    }
    let (mut events, mut gaps, newest) = (0, 0, (at_s - 1) * 1000);
    loop {
        let Event { name, data, .. } = stream.next().await.expect("goes on");
        (events, gaps) = (events + 1, gaps + usize::from(name == "gap"));
        let shown = match &*name {
            "device" => &data["points"][0]["mono_ms"],
            "readings" => &data["batches"].as_array().and_then(|all| all.last()).expect("a batch")["mono_ms"],
            _ => continue,
        };
        if *shown == newest {
            break;
        }
        assert!(events < 200, "a queue has grown: 2000 batches were offered");
    }
    assert!(gaps > 0, "what was left out is said");
    house.close().await;
}
