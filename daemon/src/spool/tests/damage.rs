//! Damage: garbage, a newer file, bad blocks and pages, and what is saved of them.

use super::taken_back::Life;
use super::*;
use crate::spool::schema;
use crate::spool::shared::Command;
use crate::spool::stepped::Stepped;

#[tokio::test]
async fn a_garbage_file_is_set_aside_and_the_spool_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join(store::FILE), vec![0x5a; 20_000]).expect("written");
    std::fs::write(directory.path().join("run"), "00000041-00000001\n").expect("written");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    assert_eq!(run.counter, 42);
    let mut plant = Plant::new(run);
    spool.append(plant.batch());
    flush(&spool).await;
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches.len(), 1);
    assert_eq!(events.len(), 1);
    let aside = directory.path().join("quarantine").join(run.to_string()).join(store::FILE);
    assert_eq!(std::fs::read(aside).expect("there"), vec![0x5a; 20_000]);
}

#[tokio::test]
async fn a_file_that_somebody_emptied_or_removed_is_told_of_by_its_copy() {
    for emptied in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
        let mut plant = Plant::new(run);
        let batches: Vec<_> = (0..10).map(|_| plant.batch()).collect();
        for batch in &batches {
            spool.append(batch.clone());
        }
        flush(&spool).await;
        spool.confirm(&[Confirmed::from(&*batches[0])]);
        spool.close(true).await.expect("closes");
        let file = directory.path().join(store::FILE);
        if emptied {
            std::fs::write(&file, []).expect("emptied");
        } else {
            std::fs::remove_file(&file).expect("there");
        }
        for _ in 0..2 {
            let (Opened { spool: second, .. }, _) = open(settings(directory.path()));
            let (batches, events) = after_salvage(&second).await;
            assert_eq!(batches, []);
            assert_eq!(
                gaps(&events, run, GapCause::Damaged),
                (2..20).collect(),
                "all but what was confirmed"
            );
            let last_wall_us = Some(stamp(18).wall_us);
            let end = Body::RunEnd { ended: run, next_seq: 20, clean: true, last_wall_us };
            let of_run =
                |event: &&Arc<Event>| matches!(event.body, Body::RunEnd { ended, .. } if ended == run);
            let ends: Vec<_> = events.iter().filter(of_run).map(|event| event.body.clone()).collect();
            assert_eq!(ends, [end], "as it was said when it ended");
            let said = |event: &Arc<Event>| matches!(event.body, Body::Corruption { saved: 0, lost: 18, .. });
            assert_eq!(
                events.iter().filter(|event| said(event)).count(),
                1,
                "said once, also after the next start"
            );
            assert_eq!(sums(&second).losses.damaged, 18);
            second.close(true).await.expect("closes");
        }
    }
}

#[tokio::test]
async fn a_newer_schema_is_set_aside_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    spool.close(true).await.expect("closes");
    let file = directory.path().join(store::FILE);
    let newer = rusqlite::Connection::open(&file).expect("opens");
    newer.pragma_update(None, "user_version", 2).expect("set");
    drop(newer);
    // Who makes a file newer writes its copy anew; ours is gone with that.
    std::fs::remove_file(directory.path().join("spool.db-copy")).expect("there");
    let before = std::fs::read(&file).expect("there");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
    let aside = directory.path().join("newer").join(run.to_string()).join(store::FILE);
    assert_eq!(std::fs::read(aside).expect("there"), before);
}

#[tokio::test]
async fn a_version_that_only_a_flipped_bit_made_newer_is_damage_and_costs_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    let run = all[0].run;
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    file.pragma_update(None, "user_version", 1 | 1 << 20).expect("set");
    drop(file);
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches, all);
    assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
}

#[tokio::test]
async fn a_damaged_block_costs_itself_and_is_recorded() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for _ in 0..9 {
        spool.append(plant.batch());
        flush(&spool).await;
    }
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let flip = "UPDATE block SET body = CAST(substr(body, 1, 4) || x'ff' || substr(body, 6) AS BLOB) WHERE number = 4";
    assert_eq!(file.execute(flip, []).expect("flipped"), 1);
    drop(file);
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    let found = numbers(&waiting(&spool).await.0);
    assert_eq!(found, (0..18).filter(|seq| !(6..8).contains(seq)).collect());
    let events = after_salvage(&spool).await.1;
    assert_eq!(gaps(&events, run, GapCause::Damaged), (6..8).collect());
    assert_eq!(sums(&spool).losses.damaged, 2);
}

#[tokio::test]
async fn a_power_cut_right_after_a_damaged_block_was_given_up_does_not_cost_the_sound_file_its_place() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for _ in 0..9 {
        spool.append(plant.batch());
        flush(&spool).await;
    }
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let flip = "UPDATE block SET body = CAST(substr(body, 1, 4) || x'ff' || substr(body, 6) AS BLOB) WHERE number = 4";
    assert_eq!(file.execute(flip, []).expect("flipped"), 1);
    drop(file);
    let now = Instant::now();
    let open = |settings| Stepped::open(settings, Board::default(), || stamp(0), now).expect("opens");
    // A window waits for its end: what the audit finds is not written with it by chance.
    let mut spool = open(SpoolSettings { commit_every: SOON, ..settings(directory.path()) });
    spool.append(Plant::new(spool.run).batch(), now);
    spool.turn(now);
    let mut cursor = Cursor::START;
    while let Some(span) = spool.span(cursor).expect("readable") {
        cursor = span.next;
    }
    spool.turn(now);
    while spool.busy() {
        spool.turn(now);
    }
    drop(spool);
    let mut spool = open(settings(directory.path()));
    spool.turn(now);
    while spool.busy() {
        spool.turn(now);
    }
    let (mut batches, mut events, mut cursor) = (Vec::new(), Vec::new(), Cursor::START);
    while let Some(span) = spool.span(cursor).expect("readable") {
        cursor = span.next;
        for item in span.items {
            match item {
                Item::Batch(batch) => batches.push(batch),
                Item::Event(event) => events.push(event),
            }
        }
    }
    assert!(!directory.path().join("quarantine").exists(), "the file is sound");
    assert_eq!(numbers(&batches), (0..18).filter(|seq| !(6..8).contains(seq)).collect());
    assert_eq!(gaps(&events, run, GapCause::Damaged), (6..8).collect());
}

#[tokio::test]
async fn a_damaged_file_gives_back_all_blocks_but_the_damaged_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let shape = big_shape();
    let all: Vec<_> = (0..100).map(|i| big(run, i * 10, &shape)).collect();
    for (i, batch) in all.iter().enumerate() {
        spool.append(batch.clone());
        flush(&spool).await;
        if i < 20 {
            spool.confirm(&[Confirmed::from(&**batch)]);
        }
    }
    spool.close(true).await.expect("closes");
    // The first page, one in the middle of the blocks, and the last.
    let file = directory.path().join(store::FILE);
    let mut bytes = std::fs::read(&file).expect("there");
    let pages = bytes.len() / 1024;
    for page in [0, pages / 2, pages - 1] {
        bytes[page * 1024..(page + 1) * 1024].fill(0);
    }
    std::fs::write(&file, bytes).expect("written");
    let (Opened { spool, run: second, .. }, _) = open(settings(directory.path()));
    let (batches, events) = after_salvage(&spool).await;
    let (kept, lost) = (numbers(&batches), gaps(&events, run, GapCause::Damaged));
    assert!(kept.is_disjoint(&lost));
    assert_eq!(kept.union(&lost).copied().collect::<BTreeSet<_>>(), (200..1000).collect());
    assert!((10..=40).contains(&lost.len()), "{} readings lost to two pages", lost.len());
    assert!(batches.iter().all(|batch| all.contains(batch)));
    let said = events.iter().find_map(|event| match event.body {
        Body::Corruption { saved, lost, .. } => Some((saved, lost)),
        _ => None,
    });
    assert_eq!(said, Some((kept.len() as u64, lost.len() as u64)));
    let ends = events
        .iter()
        .filter(|event| matches!(event.body, Body::RunEnd { ended, next_seq: 1000, .. } if ended == run));
    assert_eq!(ends.count(), 1);
    assert!(second > run);
    assert_eq!(sums(&spool).waiting, kept.len() as u64);
}

#[tokio::test]
async fn salvage_loses_nothing_to_a_commit_that_fails_meanwhile() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let shape = big_shape();
    let many = 3_000;
    for i in 0..many {
        spool.append(big(run, i * 10, &shape));
        if i % 100 == 99 {
            flush(&spool).await;
        }
    }
    spool.close(true).await.expect("closes");
    lose_first_page(&directory.path().join(store::FILE));
    let (Opened { spool, run: second, .. }, board) = open(settings(directory.path()));
    let trouble = block_commits(directory.path());
    spool.append(Plant::new(second).batch());
    let failing = async {
        while board.read(|status| status.spool.state == "ok") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, failing).await.expect("the board says that the disk fails");
    drop(trouble);
    let (batches, events) = after_salvage(&spool).await;
    let kept: BTreeSet<_> =
        batches.iter().filter(|batch| batch.run == run).flat_map(|batch| batch.seq..batch.end()).collect();
    let lost = gaps(&events, run, GapCause::Damaged);
    assert_eq!(kept.union(&lost).count() as u64, many * 10, "saved or recorded: {} lost", lost.len());
    assert!(lost.len() <= 100, "{} readings lost to one page", lost.len());
}

#[tokio::test]
async fn a_stopped_spool_whose_log_is_damaged_or_missing_is_not_written_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    let run = all[0].run;
    let cut = copy(&spool, directory.path());
    let (file, log) = (cut.path().join(store::FILE), cut.path().join("spool.db-wal"));
    let mut damaged = std::fs::read(&log).expect("there");
    // A frame of 1 024 bytes and its head, with many behind it.
    damaged[32 + 8 * 1048 + 500] ^= 1;
    std::fs::write(&log, &damaged).expect("written");
    let before = std::fs::read(&file).expect("there");
    let asked = crate::spool::Asked::Stretch { run, first: 0, next: 2 };
    let refused = crate::spool::offline::resend(cut.path(), asked).expect_err("evidence").to_string();
    assert!(refused.contains("damaged in the middle") && refused.contains("Start the daemon"), "{refused}");
    assert!(std::fs::read(&log).expect("there") == damaged && std::fs::read(&file).expect("there") == before);
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    let (batches, _) = after_salvage(&spool).await;
    assert_eq!(batches.last(), all.last(), "what lay behind the damage is saved");

    let cut = copy(&spool, directory.path());
    std::fs::remove_file(cut.path().join("spool.db-wal")).expect("there");
    let refused = crate::spool::offline::resend(cut.path(), asked).expect_err("evidence").to_string();
    assert!(refused.contains("log is missing"), "{refused}");
}

#[tokio::test]
async fn an_unreadable_shape_does_not_stop_the_spool() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    file.execute("UPDATE shape SET body = 'x'", []).expect("damaged");
    drop(file);
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
}

/// SQLite reads the rest of a long text past its own cache, and calls a page that is not there an error of the disk.
#[tokio::test]
async fn a_file_that_ends_before_its_long_texts_is_damaged_and_no_disk_that_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let long = shape("a device with many points", &[ValueKind::Text; 100]);
    let reading = |point| Reading { point, sample: Sample::good(Value::Text("1".into())) };
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let readings: Vec<_> = (0..10).map(reading).collect();
    let batch = Batch { run, seq: 0, prev: None, stamp: stamp(0), shape: long, readings: readings.into() };
    spool.append(Arc::new(batch));
    spool.close(true).await.expect("closes");
    // The log holds a commit that tells how long the file is, so that nobody looks whether it is.
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    spool.append(Plant::new(run).batch());
    flush(&spool).await;
    let length = std::fs::metadata(directory.path().join(store::FILE)).expect("there").len();
    for pages in 1..length / schema::PAGE_SIZE {
        let cut = copy(&spool, directory.path());
        let file = std::fs::File::options().write(true).open(cut.path().join(store::FILE)).expect("there");
        file.set_len(pages * schema::PAGE_SIZE).expect("cut off");
        let (Opened { spool, run, .. }, _) = open(settings(cut.path()));
        spool.append(Plant::new(run).batch());
        flush(&spool).await;
        assert!(cut.path().join("quarantine").exists(), "{pages} pages of {length} bytes are left");
        after_salvage(&spool).await;
    }
}

#[tokio::test]
async fn a_power_cut_inside_a_quarantine_loses_no_stored_reading() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 20).await;
    let run = all[0].run;
    // The log holds them, and has gone ahead of the file into the quarantine.
    let cut = copy(&spool, directory.path());
    let to = cut.path().join("quarantine/00000001-0000000a");
    std::fs::create_dir_all(&to).expect("made");
    std::fs::rename(cut.path().join("spool.db-wal"), to.join("spool.db-wal")).expect("moved");
    std::fs::write(cut.path().join("aside"), "quarantine/00000001-0000000a\n").expect("written");
    // The file alone is older than what was stored: nobody may write to it before it is with its log again.
    let before = std::fs::read(cut.path().join(store::FILE)).expect("readable");
    let asked = crate::spool::Asked::Stretch { run, first: 0, next: 2 };
    let refused = crate::spool::offline::resend(cut.path(), asked).expect_err("it is being set aside");
    assert!(refused.to_string().contains("set aside"), "{refused}");
    assert!(std::fs::read(cut.path().join(store::FILE)).expect("readable") == before, "untouched");
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    let (batches, events) = after_salvage(&spool).await;
    assert_eq!(batches, all);
    assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
}

#[tokio::test]
async fn three_quarantines_in_quick_succession_lose_nothing_and_never_stop_sampling() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run: first, .. }, _) = open(settings(directory.path()));
    let (shape, many) = (big_shape(), 600);
    for i in 0..many {
        spool.append(big(first, i * 10, &shape));
        if i % 50 == 0 {
            flush(&spool).await;
        }
    }
    spool.close(true).await.expect("closes");
    let file = directory.path().join(store::FILE);
    let damage = || {
        use std::os::unix::fs::FileExt;
        let opened = std::fs::File::options().write(true).open(&file).expect("there");
        opened.write_all_at(&[0; 1024], 0).expect("written");
    };
    damage();
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    // Twice more while the search of the first is under way, or has just ended.
    for _ in 0..2 {
        for _ in 0..20 {
            spool.append(plant.batch());
        }
        flush(&spool).await;
        damage();
        let generation = spool.shared.generation.load(std::sync::atomic::Ordering::Acquire);
        let what = "file is not a database".to_owned();
        spool.shared.command(Command::FileDamaged { generation, what });
        let until = Instant::now() + SOON;
        while spool.shared.generation.load(std::sync::atomic::Ordering::Acquire) == generation {
            assert!(Instant::now() < until, "a fresh file begins");
            spool.append(plant.batch());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let folders = || std::fs::read_dir(directory.path().join("quarantine")).expect("there").flatten();
    let until = Instant::now() + SOON;
    while !folders().all(|folder| folder.path().join("salvaged").exists()) {
        assert!(Instant::now() < until, "all are searched to their end");
        spool.append(plant.batch());
        flush(&spool).await;
    }
    assert_eq!(folders().count(), 3);
    assert!(folders().all(|folder| folder.path().join(store::FILE).exists()), "each with its file");
    let (batches, events) = waiting(&spool).await;
    let of = |run: RunId| numbers(&batches.iter().filter(|b| b.run == run).cloned().collect::<Vec<_>>());
    assert_eq!((of(first).len() as u64, of(run).len() as u64), (many * 10, plant.seq));
    assert_eq!(batches.len() as u64, many + plant.seq / 2, "each once");
    let Sums { waiting: waits, losses, .. } = sums(&spool);
    assert_eq!((waits, losses.total()), (many * 10 + plant.seq, 0));
    let reports = |event: &&Arc<Event>| matches!(event.body, Body::Corruption { .. });
    let reports: Vec<_> = events.iter().filter(reports).map(|event| event.body.clone()).collect();
    assert!(
        matches!(reports.last(), Some(Body::Corruption { lost: 0, saved, .. }) if *saved >= many * 10),
        "{reports:?}"
    );
    let ends = |event: &&Arc<Event>| matches!(event.body, Body::RunEnd { ended, .. } if ended == first);
    assert_eq!(events.iter().filter(ends).count(), 1, "{events:?}");
}

#[tokio::test]
async fn a_damaged_entry_of_the_dictionary_does_not_get_into_the_copy_that_is_to_replace_it() {
    for change in ["replace(body, 'meter', 'mezer')", "replace(body, '{', '(')"] {
        let directory = tempfile::tempdir().expect("a directory");
        let (spool, _, _, all) = stored(directory.path(), 10).await;
        spool.close(true).await.expect("closes");
        let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
        file.execute(&format!("UPDATE shape SET body = {change}"), []).expect("written");
        drop(file);
        // It opens, and writes its copy anew, before anybody reads a block.
        let mut life = Life::begin(settings(directory.path()), &schema::CURRENT);
        life.settle();
        drop(life.spool.span(Cursor::START));
        life.settle();
        assert!(directory.path().join("quarantine").exists());
        let (batches, events) = life.waiting();
        assert_eq!(batches, all, "{change}: {events:?}");
    }
}
