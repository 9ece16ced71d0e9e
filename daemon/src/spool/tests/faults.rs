//! Faults of the files that are not damage of a page: a torn tail, a file of somebody else, a block that is a lie.

use super::*;

#[tokio::test]
async fn a_torn_tail_of_the_log_costs_nothing_that_was_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    let (spool, _, _, all) = stored(directory.path(), 12).await;
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
    let (spool, _, _, all) = stored(directory.path(), 12).await;
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

/// The logs of file and of somebody else's file: what lies beside `to` afterwards is that of `from`.
fn lay_log(from: &Path, to: &Path) -> Vec<u8> {
    let name = format!("{}-wal", store::FILE);
    let log = std::fs::read(from.join(&name)).expect("there");
    std::fs::write(to.join(&name), &log).expect("written");
    log
}

#[tokio::test]
async fn the_log_of_another_spool_is_set_aside_and_nothing_of_it_gets_into_ours() {
    let other = tempfile::tempdir().expect("a directory");
    let (Opened { spool: others, run: others_run, .. }, _) = open(settings(other.path()));
    let mut plant = Plant::new(others_run);
    for _ in 0..10 {
        others.append(plant.batch());
        flush(&others).await;
    }
    for closed in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let (spool, _, _, all) = stored(directory.path(), 20).await;
        let run = all[0].run;
        let _left = if closed {
            spool.close(true).await.expect("closes");
            None
        } else {
            Some(spool)
        };
        let ours = tempfile::tempdir().expect("a directory");
        for entry in std::fs::read_dir(directory.path()).expect("readable").flatten() {
            if entry.path().is_file() && !entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::copy(entry.path(), ours.path().join(entry.file_name())).expect("copied");
            }
        }
        let log = lay_log(other.path(), ours.path());
        let refused = Offline::open(ours.path()).expect_err("the log is not its own");
        assert!(refused.to_string().contains("another spool"), "{refused}");
        let found = crate::spool::verify::file(&ours.path().join(store::FILE), |_| {}).expect("readable");
        assert!(found.faults[0].contains("another spool"), "{found:?}");
        let (Opened { spool, run: next, .. }, _) = open(settings(ours.path()));
        let mut plant = Plant::new(next);
        let late = plant.batch();
        spool.append(late.clone());
        let (batches, events) = after_salvage(&spool).await;
        let found = events.iter().find_map(|event| match &event.body {
            Body::Corruption { found, saved, lost } => Some((found.clone(), *saved, *lost)),
            _ => None,
        });
        let (found, saved, lost) = found.expect("said");
        assert!(found.contains("another spool"), "{found}");
        // Who was not closed has lost its own log with what was in it, and says so.
        assert_eq!(found.contains("lost with its own"), !closed, "{found}");
        if closed {
            assert_eq!((&batches[..20], saved, lost), (&all[..], 40, 0));
        }
        assert_eq!(batches.last(), Some(&late));
        assert!(batches.iter().all(|batch| batch.run == run || batch.run == next), "nothing of the other");
        assert!(!spool.shared.lock().ledger.runs.contains_key(&others_run));
        let aside = ours.path().join("quarantine").join(next.to_string());
        assert_eq!(std::fs::read(aside.join("spool.db-wal")).expect("there"), log, "as it was");
    }
}

#[tokio::test]
async fn each_log_says_from_its_first_commit_on_whose_it_is() {
    use crate::spool::salvage::{LogFault, log_fault};
    let other = tempfile::tempdir().expect("a directory");
    let (Opened { spool, .. }, _) = open(settings(other.path()));
    spool.close(true).await.expect("closes");
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let (shape, mut begun) = (big_shape(), BTreeSet::new());
    for i in 0..700 {
        spool.append(big(run, i * 10, &shape));
        flush(&spool).await;
        let log = lay_log(directory.path(), other.path());
        begun.insert(log[12..24].to_vec());
        assert_eq!(log_fault(&directory.path().join(store::FILE)), None, "our own after {i} commits");
        let laid = log_fault(&other.path().join(store::FILE));
        assert_eq!(laid, Some(LogFault::Foreign), "laid beside another after {i} commits");
    }
    assert!(begun.len() > 3, "the log began anew {} times", begun.len());
}

#[tokio::test]
async fn a_bit_that_flips_in_the_name_of_the_file_does_not_make_its_own_log_another_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    // The name gets into the file.
    open(settings(directory.path())).0.spool.close(true).await.expect("closes");
    let (spool, _, _, all) = stored(directory.path(), 12).await;
    let cut = copy(&spool, directory.path());
    let file = cut.path().join(store::FILE);
    let mut bytes = std::fs::read(&file).expect("there");
    let before = b"{\"id\":\"";
    let name = 1024 + bytes[1024..2048].windows(7).position(|seven| seven == before).expect("there") + 7;
    // From one digit to another.
    let digit = name + bytes[name..].iter().position(|digit| (b'0'..=b'7').contains(digit)).expect("one");
    bytes[digit] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    let (Opened { spool, .. }, _) = open(settings(cut.path()));
    assert_eq!(waiting(&spool).await.0, all);
}
