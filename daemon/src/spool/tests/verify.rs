//! Verifying: a sound file is called sound and left as it is, and each kind of damage is found.

use std::collections::BTreeMap;
use std::time::SystemTime;

use rusqlite::Connection;
use tokio::sync::watch;

use super::*;
use crate::spool::schema;
use crate::spool::verify::{Check, Unbooked, Unverified, Verified, file};

fn verified(directory: &Path) -> Verified {
    file(&directory.join(store::FILE), |_| {}).expect("readable")
}

/// Every file with its content and its time.
fn trace(directory: &Path) -> BTreeMap<std::path::PathBuf, (Vec<u8>, SystemTime)> {
    let entries = std::fs::read_dir(directory).expect("readable").flatten();
    let look = |entry: std::fs::DirEntry| {
        let time = entry.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        (entry.path(), (std::fs::read(entry.path()).expect("readable"), time))
    };
    entries.map(look).collect()
}

/// A spool at its cap, of several lives, with readings that wait, were confirmed and were lost: as a kill leaves it.
async fn lived() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    super::folded::lives(directory.path(), 4).await;
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped);
    let shape = big_shape();
    for i in 0..700 {
        let batch = big(run, i * 10, &shape);
        spool.append(batch.clone());
        if i % 3 == 0 {
            flush(&spool).await;
        }
        if (300..600).contains(&i) {
            spool.confirm(&[Confirmed::from(&*batch)]);
        }
    }
    flush(&spool).await;
    spool.record(Body::Device { device: "meter".into(), answering: false }, stamp(1));
    flush(&spool).await;
    copy(&spool, directory.path())
}

#[tokio::test]
async fn a_sound_file_is_called_sound_and_no_trace_is_left() {
    let directory = lived().await;
    let log = directory.path().join(format!("{}-wal", store::FILE));
    assert!(std::fs::metadata(&log).expect("there").len() > 0, "as a kill leaves it: with a log");
    let before = trace(directory.path());
    let found = verified(directory.path());
    assert!(found.sound() && found.structure, "{found:?}");
    assert!(trace(directory.path()) == before, "read, and nothing else");
    assert!(found.lost > 0 && found.waiting > 0 && found.confirmed > 0, "{found:?}");
    let offline = Offline::open(directory.path()).expect("opens").status(None);
    assert_eq!((found.waiting, found.confirmed), (offline.waiting, offline.confirmed));

    // The same without a log, under a name that no address can hold as it is.
    drop(Connection::open(directory.path().join(store::FILE)).expect("opens").query_row(
        "PRAGMA wal_checkpoint(TRUNCATE)",
        [],
        |row| row.get::<_, i64>(0),
    ));
    let odd = directory.path().join("spool?mode=rwc#%41 é.db");
    std::fs::copy(directory.path().join(store::FILE), &odd).expect("copied");
    let before = trace(directory.path());
    let again = file(&odd, |_| {}).expect("readable");
    assert!(again.sound(), "{again:?}");
    assert_eq!((again.blocks, again.readings, again.waiting), (found.blocks, found.readings, found.waiting));
    assert!(trace(directory.path()) == before);
}

fn seal_again(connection: &Connection) {
    for (table, column, key) in [("spool", "mark", "id"), ("run", "books", "run")] {
        let mut statement =
            connection.prepare(&format!("SELECT {key}, {column} FROM {table}")).expect("readable");
        let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
        for (at, text) in rows.expect("readable").flatten() {
            let (json, _) = text.rsplit_once(",\"crc\"").expect("sealed");
            let text = crate::spool::records::seal(format!("{json}}}"));
            let sql = format!("UPDATE {table} SET {column} = ?2 WHERE {key} = ?1");
            connection.execute(&sql, (at, text)).expect("written");
        }
    }
}

#[tokio::test]
async fn each_kind_of_damage_is_found() {
    let lived = lived().await;
    let whole = lived.path().join(store::FILE);
    drop(
        Connection::open(&whole)
            .expect("opens")
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)),
    );
    let newest = "(SELECT place FROM block ORDER BY number DESC LIMIT 1)";
    let damages = [
        (format!("UPDATE block SET body = zeroblob(length(body)) WHERE place = {newest}"), "checksum"),
        (format!("UPDATE block SET head = x'00' WHERE place = {newest}"), "no block"),
        ("UPDATE shape SET body = replace(body, 'scale', 'score')".to_owned(), "is missing or another one"),
        ("DELETE FROM shape WHERE id = (SELECT max(id) FROM shape)".to_owned(), "is missing or another one"),
        ("UPDATE shape SET body = 'no' WHERE id = 1".to_owned(), "entry of the dictionary makes no sense"),
        (
            "UPDATE block SET number = 1 WHERE place = (SELECT place FROM block ORDER BY number LIMIT 1 OFFSET 9)".to_owned(),
            "is out of its order",
        ),
        (
            format!(
                "INSERT INTO block (place, number, head, body)
                 SELECT place + 1, number + 1, head, body FROM block WHERE place = {newest}"
            ),
            "of its readings are in another block too",
        ),
        (
            "DELETE FROM block WHERE place = (SELECT place FROM block ORDER BY number DESC LIMIT 1 OFFSET 5)".to_owned(),
            "readings wait, and no block holds them",
        ),
        (
            "UPDATE spool SET mark = json_set(mark, '$.floor', 1000000)".to_owned(),
            "lie where everything counts as settled",
        ),
        (
            "UPDATE run SET books = json_set(books, '$.durable', 10) , ended = 1".to_owned(),
            "the run only to 10",
        ),
        ("UPDATE run SET books = json_set(books, '$.losses', json('[9,9,9,9,9]'))".to_owned(), "are counted as lost"),
        ("UPDATE run SET books = 'no'".to_owned(), "its books make no sense"),
        ("DELETE FROM run".to_owned(), "has no books"),
        ("UPDATE spool SET mark = 'no'".to_owned(), "own row makes no sense"),
        ("DELETE FROM spool".to_owned(), "own row is missing"),
        ("UPDATE event SET body = '{}'".to_owned(), "it makes no sense"),
        ("INSERT INTO event SELECT id + 1000, run, number, sent, body FROM event".to_owned(), "there are two records"),
        ("UPDATE dead SET body = zeroblob(length(body))".to_owned(), "dead letter 1: checksum"),
        ("DROP TABLE dead".to_owned(), "table dead is missing"),
        ("PRAGMA application_id = 7".to_owned(), "it is no spool"),
    ];
    for (damage, words) in damages {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(store::FILE);
        std::fs::copy(&whole, &path).expect("copied");
        let connection = Connection::open(&path).expect("opens");
        connection.execute_batch(&damage).expect(&damage);
        if damage.contains("json_set") {
            // Their checksums fit: a mistake of ours, not the disk's.
            seal_again(&connection);
        }
        drop(connection);
        let found = verified(directory.path());
        assert!(found.faults.iter().any(|fault| fault.contains(words)), "{damage}: {:?}", found.faults);
    }
}

#[tokio::test]
async fn a_file_of_rubbish_is_damaged_and_one_that_is_not_there_cannot_be_read() {
    let directory = lived().await;
    let path = directory.path().join(store::FILE);
    std::fs::remove_file(directory.path().join(format!("{}-wal", store::FILE))).expect("there");
    let whole = std::fs::read(&path).expect("readable");
    let length = whole.len();
    // The root of the blocks: a page in the middle may be a free one, and then nothing is wrong.
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'block'";
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let alone = format!("file:{}?immutable=1", path.display());
    let connection = Connection::open_with_flags(alone, flags).expect("opens");
    let root: i64 = connection.query_row(sql, [], |row| row.get(0)).expect("there");
    drop(connection);
    let mut page = whole.clone();
    page[usize::try_from(root - 1).expect("early") * 1024..][..1024].fill(0x55);
    for (bytes, what) in [
        (Vec::new(), "empty"),
        (vec![0x5a; 20_000], "rubbish"),
        (whole[..length / 2].to_vec(), "cut off"),
        (page, "a page overwritten"),
    ] {
        std::fs::write(&path, bytes).expect("written");
        let found = verified(directory.path());
        assert!(!found.sound(), "{what}");
        assert!(found.faults.len() <= 100, "{what}");
    }
    let error = file(&directory.path().join("nothing.db"), |_| {}).expect_err("not there");
    assert!(matches!(error, Unverified::Unreadable { .. }), "{error}");
    let error = file(directory.path(), |_| {}).expect_err("a folder");
    assert!(matches!(error, Unverified::Unreadable { .. }), "{error}");
    std::fs::write(&path, whole).expect("written");
    let newer = schema::VERSION + 1;
    Connection::open(&path).expect("opens").pragma_update(None, "user_version", newer).expect("set");
    let error = file(&path, |_| {}).expect_err("newer");
    assert!(error.to_string().contains("a newer fieldspool made it"), "{error}");
}

#[tokio::test]
async fn a_check_begins_without_walking_over_all_blocks_and_knows_how_far_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let (Opened { spool, run, .. }, _) = open(settings(directory.path()));
    let mut plant = Plant::new(run);
    for _ in 0..200 {
        spool.append(plant.batch());
        flush(&spool).await;
    }
    spool.close(true).await.expect("closes");
    let path = directory.path().join(store::FILE);
    let none = |_: &mut dyn FnMut(&crate::spool::ledger::Ledger, u64, Unbooked<'_>)| {};
    let connection = Connection::open(&path).expect("opens");
    let mut check = Check::begin(&path, &connection, &none, false).expect("readable");
    let mut entries = store::dictionary(&connection).expect("readable");
    let mut before = check.progress();
    assert!(before < 0.01, "{before}");
    while !check.step(&connection, &mut entries, &none, Duration::ZERO).expect("readable") {
        assert!((before..=1.0).contains(&check.progress()));
        before = check.progress();
    }
    assert!(before > 0.99, "{before}");
    drop(connection);
    // Whoever walks over all blocks meets a page that is no page.
    let mut bytes = std::fs::read(&path).expect("there");
    let leaf =
        |page: &&mut [u8]| page[0] == 0x0d && page.windows(4).any(|four| four == crate::spool::block::MAGIC);
    let mut leaves: Vec<_> = bytes.chunks_mut(1024).filter(leaf).collect();
    let middle = leaves.len() / 2;
    leaves[middle].fill(0);
    std::fs::write(&path, bytes).expect("written");
    let connection = Connection::open(&path).expect("opens");
    let mut check = Check::begin(&path, &connection, &none, false).expect("it begins all the same");
    let walks = (0..200).find_map(|_| check.step(&connection, &mut entries, &none, Duration::ZERO).err());
    walks.expect("and finds it on the way");
}

#[tokio::test]
async fn a_spool_in_use_is_verified_in_turns_while_its_ring_moves() {
    let directory = tempfile::tempdir().expect("a directory");
    let capped = SpoolSettings { bytes_max: Some(BYTES_MAX_LEAST), ..settings(directory.path()) };
    let (Opened { spool, run, .. }, _) = open(capped);
    let shape = big_shape();
    let mut next = 0;
    for round in 0..6 {
        for _ in 0..100 {
            let batch = big(run, next, &shape);
            next = batch.end();
            spool.append(batch.clone());
            if next % 30 == 0 {
                spool.confirm(&[Confirmed::from(&*batch)]);
            }
        }
        let (found, ()) = tokio::join!(spool.verify(watch::Sender::new(0.0)), flush(&spool));
        let found = found.expect("readable");
        assert!(found.sound() && !found.structure, "round {round}: {found:?}");
    }
    let file = Connection::open(directory.path().join(store::FILE)).expect("opens");
    file.execute(
        "UPDATE block SET body = zeroblob(length(body)) WHERE place = (SELECT max(place) FROM block)",
        [],
    )
    .expect("damaged");
    let found = spool.verify(watch::Sender::new(0.0)).await.expect("readable");
    assert!(found.faults.iter().any(|fault| fault.contains("checksum")), "{found:?}");
}
