//! Reading the small tables: the spool's own row, runs, records, dead letters, shapes. Whole tables, at opening and for a rescue;
//! what is damaged in them is left out, but for the spool's own row.

use std::collections::BTreeSet;
use std::sync::Arc;

use rusqlite::Connection;

use super::write::CLOCKS_KEPT;
use super::{DeadLetter, StoreError};
use crate::model::event::{ClockCorrection, Event};
use crate::model::{Batch, RunId};
use crate::spool::block;
use crate::spool::dictionary::Dictionary;
use crate::spool::inner::salvage_of;
use crate::spool::ledger::{End, RunBooks};
use crate::spool::records::{Mark, books_of, event_of, mark_of, run_of};
use crate::spool::shared::off_the_lock;
use crate::status::Salvage;

/// Dead letters read at once: each may be as long as a batch.
const LETTERS_AT_ONCE: i64 = 32;

/// What is known of a run from its row.
#[derive(Clone, Debug)]
pub struct RunRow {
    /// Which.
    pub run: RunId,
    /// A run end record exists.
    pub ended: bool,
    /// Wall clock of its last durable batch, if known.
    pub last_wall_us: Option<i64>,
    /// Its books.
    pub books: RunBooks,
}

/// What the small tables said at opening.
#[derive(Debug)]
pub struct Found {
    /// The spool's own row.
    pub mark: Mark,
    /// All runs, oldest first.
    pub runs: Vec<RunRow>,
    /// Records not sent yet.
    pub events_waiting: u64,
    /// Row id of the newest record.
    pub newest_event: i64,
    /// What its records say of the clock, oldest first.
    pub clocks: Vec<ClockCorrection>,
    /// The newest damage that they tell of.
    pub salvage: Option<Salvage>,
}

/// Reads the small tables.
pub fn found(connection: &Connection) -> Result<Found, StoreError> {
    off_the_lock();
    let mark = mark(connection)?;
    let mut statement = connection.prepare("SELECT run, ended, last_wall_us, books FROM run ORDER BY run")?;
    let mut rows = statement.query([])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        let run = run_of(row.get(0)?);
        let books = books_of(run, row.get_ref(3)?.as_str().unwrap_or_default());
        let mut books = books.ok_or_else(|| StoreError::Foreign("the books of a run are damaged".into()))?;
        let (ended, last_wall_us) = (row.get(1)?, row.get(2)?);
        books.end = books.end.or(End::of_row(ended, last_wall_us));
        runs.push(RunRow { run, ended: ended != 0, last_wall_us, books });
    }
    let events = "SELECT coalesce(sum(sent = 0), 0), coalesce(max(id), 0) FROM event";
    let (waiting, newest): (i64, i64) =
        connection.query_row(events, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (clocks, salvage) = (clocks(connection)?, damage(connection)?);
    let events_waiting = waiting.cast_unsigned();
    Ok(Found { mark, runs, events_waiting, newest_event: newest, clocks, salvage })
}

/// Runs that a waiting run end or gap record is about.
pub fn told_of(connection: &Connection) -> Result<BTreeSet<RunId>, StoreError> {
    off_the_lock();
    let sql = "SELECT run, number, body FROM event WHERE sent = 0
               AND (body LIKE '%\"kind\":\"run_end\"%' OR body LIKE '%\"kind\":\"gap\"%'
                    OR body LIKE '%\"kind\":\"gaps\"%')";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut runs = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(1)?.cast_unsigned();
        let event = event_of(run_of(row.get(0)?), number, row.get_ref(2)?.as_str().unwrap_or_default());
        runs.extend(event.and_then(|event| event.body.about()));
    }
    Ok(runs)
}

/// All records, sent or not, that make sense.
pub fn records(connection: &Connection) -> Result<Vec<Event>, StoreError> {
    off_the_lock();
    let mut statement = connection.prepare("SELECT run, number, body FROM event")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(1)?.cast_unsigned();
        let text = row.get_ref(2)?.as_str().unwrap_or_default();
        found.extend(event_of(run_of(row.get(0)?), number, text));
    }
    Ok(found)
}

/// Gap records that wait, with their rows.
pub fn gap_rows(connection: &Connection) -> Result<Vec<(i64, Event)>, StoreError> {
    off_the_lock();
    let sql = "SELECT id, run, number, body FROM event WHERE sent = 0
               AND (body LIKE '%\"kind\":\"gap\"%' OR body LIKE '%\"kind\":\"gaps\"%') ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(2)?.cast_unsigned();
        let event = event_of(run_of(row.get(1)?), number, row.get_ref(3)?.as_str().unwrap_or_default());
        found.extend(event.map(|event| (row.get(0).unwrap_or_default(), event)));
    }
    Ok(found)
}

/// The newest corrections of the clock, by their names: a rescue stores older ones behind newer ones.
fn clocks(connection: &Connection) -> Result<Vec<ClockCorrection>, StoreError> {
    let sql = "SELECT run, number, body FROM event WHERE body LIKE '%\"kind\":\"clock\"%'
               ORDER BY run DESC, number DESC LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([CLOCKS_KEPT])?;
    let mut clocks = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(1)?.cast_unsigned();
        let event = event_of(run_of(row.get(0)?), number, row.get_ref(2)?.as_str().unwrap_or_default());
        clocks.extend(event.and_then(|event| event.body.correction()));
    }
    clocks.reverse();
    Ok(clocks)
}

/// The newest record of damage.
fn damage(connection: &Connection) -> Result<Option<Salvage>, StoreError> {
    let sql = "SELECT run, number, body FROM event WHERE body LIKE '%\"kind\":\"corruption\"%' ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let number = row.get::<_, i64>(1)?.cast_unsigned();
    let event = event_of(run_of(row.get(0)?), number, row.get_ref(2)?.as_str().unwrap_or_default());
    Ok(event.and_then(|event| salvage_of(&event.body, event.stamp)))
}

/// The spool's own row.
pub fn mark(connection: &Connection) -> Result<Mark, StoreError> {
    let mark: String = connection.query_row("SELECT mark FROM spool WHERE id = 1", [], |row| row.get(0))?;
    mark_of(&mark).ok_or_else(|| StoreError::Foreign("the spool's own row is damaged".into()))
}

/// The dead letters that are kept.
#[derive(Clone, Debug, Default)]
pub struct Letters {
    /// How many.
    pub kept: u64,
    /// Of these, records: what they tell, the server was not told.
    pub records: u64,
    /// Why the newest was refused.
    pub newest: Option<String>,
}

/// Looks how many there are.
pub fn letters(connection: &Connection) -> rusqlite::Result<Letters> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE n = 0), (SELECT reason FROM dead ORDER BY id DESC LIMIT 1) FROM dead";
    let number = |row: &rusqlite::Row<'_>, at| row.get::<_, i64>(at).map(i64::cast_unsigned);
    connection.query_row(sql, [], |row| {
        Ok(Letters { kept: number(row, 0)?, records: number(row, 1)?, newest: row.get(2)? })
    })
}

/// Some dead letters with an id below `before`, newest first, and the id to go on with. One whose block is damaged comes without it.
pub fn dead_letters(connection: &Connection, before: i64) -> Result<(Vec<DeadLetter>, i64), StoreError> {
    off_the_lock();
    let dictionary = dictionary(connection)?;
    let sql =
        "SELECT id, at_us, reason, run, seq, n, head, body FROM dead WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([before, LETTERS_AT_ONCE])?;
    let (mut letters, mut before) = (Vec::new(), before);
    while let Some(row) = rows.next()? {
        before = row.get(0)?;
        let number = |at| row.get::<_, i64>(at).map(i64::cast_unsigned);
        let name = (run_of(row.get(3)?), number(4)?, number(5)?);
        let (head, body): (Vec<u8>, Vec<u8>) = (row.get(6)?, row.get(7)?);
        let batch = letter(&[head, body].concat(), &dictionary, name);
        letters.push(DeadLetter { at_us: row.get(1)?, reason: row.get(2)?, name, batch });
    }
    Ok((letters, before))
}

/// The batch of a dead letter: a block of its own, which must hold just what the letter is called.
pub fn letter(bytes: &[u8], dictionary: &Dictionary, name: (RunId, u64, u64)) -> Option<Arc<Batch>> {
    let batch = block::decode(bytes, dictionary).ok()?.pop()?;
    ((batch.run, batch.seq, batch.n()) == name).then(|| Arc::new(batch))
}

/// Records that say how wrong a clock was, and that were sent: older backlog needs them.
pub fn sent_clocks(connection: &Connection) -> Result<Vec<Event>, StoreError> {
    off_the_lock();
    let sql = "SELECT run, number, body FROM event WHERE sent = 1 AND body LIKE '%\"kind\":\"clock\"%'
               ORDER BY run DESC, number DESC LIMIT ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([CLOCKS_KEPT])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let number = row.get::<_, i64>(1)?.cast_unsigned();
        found.extend(event_of(run_of(row.get(0)?), number, row.get_ref(2)?.as_str().unwrap_or_default()));
    }
    found.reverse();
    Ok(found)
}

/// All entries of the file. An entry that cannot be read is left out: blocks that need it count as damaged.
pub fn dictionary(connection: &Connection) -> rusqlite::Result<Dictionary> {
    let mut dictionary = Dictionary::default();
    let mut statement = connection.prepare("SELECT id, body FROM shape")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(id) = u32::try_from(row.get::<_, i64>(0)?) {
            dictionary.insert(id, row.get_ref(1)?.as_bytes().unwrap_or_default());
        }
    }
    Ok(dictionary)
}
