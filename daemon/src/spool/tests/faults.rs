//! Faults of the files that are not damage of a page: a torn tail, a file of somebody else, a block that is a lie.

use super::*;

#[tokio::test]
async fn a_torn_tail_of_the_log_costs_nothing_that_was_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let all: Vec<_> = (0..12).map(|_| plant.batch()).collect();
    for batch in &all {
        spool.append(batch.clone());
        flush(&spool).await;
    }
    // A commit that the power cut: pieces of a frame, its header right or not.
    for (from, length) in [(32, 5), (32, 24), (32, 700), (32, 1047), (32, 1048), (500, 3000)] {
        let cut = copy(&spool, directory.path());
        let log = cut.path().join(format!("{}-wal", store::FILE));
        let mut bytes = std::fs::read(&log).expect("there");
        let torn = bytes[from..from + length].to_vec();
        bytes.extend(torn);
        std::fs::write(&log, bytes).expect("written");
        let (Opened { spool, run: next, .. }, _) = open(settings(cut.path()));
        let (batches, events) = waiting(&spool).await;
        assert_eq!(batches, all, "{length} bytes of a frame");
        assert_eq!(events.len(), 1, "the run end");
        // What comes after it is stored as ever.
        let late = Plant::new(next).batch();
        spool.append(late.clone());
        flush(&spool).await;
        let again = copy(&spool, cut.path());
        let (Opened { spool, .. }, _) = open(settings(again.path()));
        assert_eq!(waiting(&spool).await.0.last(), Some(&late));
    }
}

#[tokio::test]
async fn an_end_before_the_first_commit_of_a_life_leaves_no_log_that_looks_damaged() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    let all: Vec<_> = (0..12).map(|_| plant.batch()).collect();
    for batch in &all {
        spool.append(batch.clone());
        flush(&spool).await;
    }
    spool.close(true).await.expect("closes");
    // A start gets as far as its first commit, which the disk refuses, and is killed.
    let file = directory.path().join(store::FILE);
    let (mut started, _) = store::Store::open(&file, BYTES_MAX_LEAST, "no new one").expect("opens");
    started.empty_log().expect("emptied");
    let trouble = block_commits(directory.path());
    let mark = crate::spool::records::Mark { id: "another".to_owned(), ..started.mark().expect("there") };
    let work = store::Work { mark: Some(&mark), ..store::Work::default() };
    started.commit(&work).expect_err("refused");
    let cut = copy_of(directory.path());
    drop((trouble, started));
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    assert_eq!(waiting(&spool).await.0, all);
    assert!(!cut.path().join("quarantine").exists(), "the file is sound");
}

#[tokio::test]
async fn a_log_that_was_made_zeros_is_damage_and_what_stood_in_it_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    spool.append(plant.batch());
    flush(&spool).await;
    let cut = copy(&spool, directory.path());
    let log = cut.path().join(format!("{}-wal", store::FILE));
    let length = std::fs::metadata(&log).expect("there").len();
    std::fs::write(&log, vec![0; usize::try_from(length).expect("short")]).expect("written");
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    let (_, events) = after_salvage(&spool).await;
    assert!(events.iter().any(|event| matches!(event.body, Body::Corruption { .. })), "{events:?}");
}

#[tokio::test]
async fn a_file_of_another_program_is_set_aside_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(store::FILE);
    let other = rusqlite::Connection::open(&file).expect("opens");
    other.execute_batch("CREATE TABLE photo (name TEXT); INSERT INTO photo VALUES ('sea')").expect("made");
    drop(other);
    let before = std::fs::read(&file).expect("there");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let batch = Plant::new(run).batch();
    spool.append(batch.clone());
    flush(&spool).await;
    assert_eq!(after_salvage(&spool).await.0, [batch]);
    let mut found = Vec::new();
    for folder in std::fs::read_dir(directory.path().join("quarantine")).expect("there").flatten() {
        found.push(std::fs::read(folder.path().join(store::FILE)).expect("there"));
    }
    assert_eq!(found, [before]);
}

#[tokio::test]
async fn a_block_that_is_whole_and_makes_no_sense_costs_itself_and_blocks_nobody() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for _ in 0..9 {
        spool.append(plant.batch());
        flush(&spool).await;
    }
    spool.close(true).await.expect("closes");
    let file = rusqlite::Connection::open(directory.path().join(store::FILE)).expect("opens");
    let read = "SELECT head, body FROM block WHERE number = 4";
    let (mut head, mut body): (Vec<u8>, Vec<u8>) =
        file.query_row(read, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("there");
    body.fill(0xff);
    let whole = [&head[..], &body[..]].concat();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&whole[..12]), &whole[16..]);
    head[12..16].copy_from_slice(&sum.to_le_bytes());
    let lie = "UPDATE block SET head = ?1, body = ?2 WHERE number = 4";
    assert_eq!(file.execute(lie, (head, body)).expect("written"), 1);
    drop(file);
    let (Opened { spool, .. }, _) = open(settings(directory.path()));
    assert_eq!(numbers(&waiting(&spool).await.0), (0..18).filter(|seq| !(6..8).contains(seq)).collect());
    assert_eq!(gaps(&after_salvage(&spool).await.1, run, GapCause::Damaged), (6..8).collect());
}
