//! A rescue beside a file that is not whole itself, beside folders that the disk does not tell of yet, and over several folders.

use super::taken_back::Life;
use super::*;
use crate::spool::{aside, schema};

/// The file in this state directory, set aside into a folder of the other under this name; gives the folder.
fn put_beside(from: &Path, to: &Path, name: RunId) -> std::path::PathBuf {
    aside::set_aside(&from.join(store::FILE), aside::QUARANTINE, name).expect("set aside");
    let folder = to.join("quarantine").join(name.to_string());
    std::fs::create_dir_all(to.join("quarantine")).expect("made");
    std::fs::rename(from.join("quarantine").join(name.to_string()), &folder).expect("moved");
    folder
}

/// What was done to some blocks, which are elsewhere in the file all the same: no table leads to them, or their heads say nothing.
const FAULTS: [&str; 2] = [
    "DELETE FROM block WHERE number BETWEEN 8 AND 12",
    "UPDATE block SET head = zeroblob(length(head)) WHERE number BETWEEN 8 AND 12",
];

#[tokio::test]
async fn blocks_that_cannot_be_found_in_the_own_file_when_a_rescue_begins_are_searched_for_and_not_called_lost()
 {
    for (fault, with_folder) in FAULTS.into_iter().flat_map(|fault| [(fault, false), (fault, true)]) {
        let (away, directory) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        let (spool, _, _, other) = stored(away.path(), 20).await;
        let aside = copy(&spool, away.path());
        let (spool, _, _, own) = stored(directory.path(), 20).await;
        let cut = copy(&spool, directory.path());
        if with_folder {
            put_beside(aside.path(), cut.path(), RunId { counter: 1, random: 0 });
        }
        let file = rusqlite::Connection::open(cut.path().join(store::FILE)).expect("opens");
        file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).expect("set");
        file.execute_batch(
            "CREATE TABLE stash (place INTEGER PRIMARY KEY, number INTEGER NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL) STRICT;
            INSERT INTO stash SELECT place, number, head, body FROM block WHERE number BETWEEN 8 AND 12;",
        )
        .expect("kept");
        assert_eq!(file.execute(fault, []).expect("done"), 5);
        drop(file);
        let mut life = Life::begin(settings(cut.path()), &schema::CURRENT);
        life.settle();
        life.now += Duration::from_secs(11);
        life.settle();
        let (batches, events) = life.waiting();
        let of = |all: &[Arc<Batch>]| batches.iter().filter(|batch| all.contains(batch)).count();
        assert_eq!((of(&own), of(&other)), (20, if with_folder { 20 } else { 0 }), "{events:?}");
        for run in [own[0].run, other[0].run] {
            assert_eq!(gaps(&events, run, GapCause::Damaged), BTreeSet::new());
        }
    }
}
