//! What a commit writes, table by table. The ring's rule for room stands in `Writing::put`.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};

use super::{DEAD_LETTERS_MAX, DeadLetter, SLACK_PAGES, StoreError, Work, Written, fit, pages};
use crate::model::event::CLOCKS_MAX;
use crate::model::{Batch, RunId};
use crate::spool::again::concerns;
use crate::spool::block::{self, HEADER_LENGTH, READINGS_MAX};
use crate::spool::dictionary::{Dictionary, body_of};
use crate::spool::records::{books_text, event_of, event_text, mark_text, run_key, run_of};
use crate::spool::ring::{self, Extent, Spot};
use crate::spool::schema;

/// Sent records that stay, to be looked at, if their share of the cap allows.
const SENT_EVENTS_KEPT: i64 = 1000;

/// Clock records that stay, sent or not: one a boot is all that older backlog needs.
#[expect(clippy::cast_possible_wrap, reason = "16")]
pub(super) const CLOCKS_KEPT: i64 = CLOCKS_MAX as i64;

/// Records that wait and prove nothing about readings (a device fell silent, polls were missed): older ones go, so that
/// a restless line cannot crowd out readings while nobody takes its records.
const TOLD_EVENTS_KEPT: i64 = 10_000;

/// Sent records, records that prove nothing, and dead letters: each takes at most this share of the cap, so that a small spool
/// stays one of readings.
const SMALL_SHARE: u64 = 16;

/// Records of a page, measured with device names of ordinary length.
const EVENTS_A_PAGE: u64 = 5;

/// So many old blocks go for one new one, and no more if that makes room for it: a commit stays short, and a smaller cap is reached
/// step by step.
const GIVE_UP_MAX: usize = 64;

/// What a row takes beside its text, with its place in the index.
const ROW_BYTES: usize = 64;

/// Pages for what a commit changes in place, and for a row's part in trees and indices.
const SMALL_CHANGES: u64 = 12;

/// A transaction that writes blocks.
pub(super) struct Writing<'a> {
    pub(super) transaction: Transaction<'a>,
    pub(super) dictionary: &'a mut Dictionary,
    pub(super) ring: Option<Extent>,
    /// Pages that may be in use before old blocks go.
    pub(super) pages_room: u64,
    pub(super) next_block: u64,
    pub(super) floor: u64,
}

impl Writing<'_> {
    pub(super) fn undo(&mut self, number: u64) -> Result<(), StoreError> {
        while let Some(spot) = ring::locate(&self.transaction, number)? {
            self.transaction.execute("DELETE FROM block WHERE place = ?1", [spot.place])?;
        }
        self.ring = ring::extent(&self.transaction)?;
        // Numbers go on without a hole: a hole means that blocks cannot be reached any more.
        self.next_block = number;
        Ok(())
    }

    pub(super) fn shapes(&mut self, batches: &[Arc<Batch>], added: &mut Vec<u32>) -> Result<(), StoreError> {
        for batch in batches {
            if self.dictionary.id(&batch.shape).is_none() {
                let (id, body) = (self.dictionary.next_id(), body_of(&batch.shape));
                let text = String::from_utf8_lossy(&body);
                self.transaction
                    .execute("INSERT INTO shape (id, body) VALUES (?1, ?2)", params![id, text])?;
                self.dictionary.insert(id, &body);
                added.push(id);
            }
            self.dictionary.remember(&batch.shape);
        }
        Ok(())
    }

    pub(super) fn blocks(
        &mut self,
        (batches, apart): (&[Arc<Batch>], bool),
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let mut rest = batches;
        let mut bytes = Vec::new();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cut(rest, apart));
            rest = later;
            let header = block::encode(now, self.dictionary, &mut bytes)?;
            let spot = self.put(&bytes)?;
            written.bytes += bytes.len() as u64;
            written.blocks.push((spot, header));
        }
        Ok(())
    }

    /// Puts a block into a free place while the file may grow, else into the row of the oldest.
    fn put(&mut self, bytes: &[u8]) -> Result<Spot, StoreError> {
        let number = self.next_block;
        self.next_block += 1;
        let (head, body) = bytes.split_at(HEADER_LENGTH);
        let need = bytes.len() as u64 / (schema::PAGE_SIZE * 9 / 10) + 1;
        if fit(&self.transaction, need, self.pages_room)?
            && let Some(place) = ring::free_place(self.ring)
        {
            let sql = "INSERT INTO block (place, number, head, body) VALUES (?1, ?2, ?3, ?4)";
            self.transaction.prepare_cached(sql)?.execute(params![
                place,
                number.cast_signed(),
                head,
                body
            ])?;
            return Ok(self.newest(Spot { place, number }));
        }
        let oldest = self.ring.map(|ring| ring.oldest).filter(|oldest| oldest.number < self.floor);
        let Spot { place, .. } = oldest.ok_or(StoreError::NoRoom)?;
        // Above a cap that was made smaller it is enough not to grow.
        let most = pages(&self.transaction)?.0.max(self.pages_room + SLACK_PAGES);
        let mut oldest = self.after(place)?;
        let sql = "UPDATE block SET number = ?2, head = ?3, body = ?4 WHERE place = ?1";
        if need > 1 {
            // SQLite takes the new pages before it frees the old ones: make the row small first.
            let nothing: &[u8] = &[];
            let empty = params![place, number.cast_signed(), nothing, nothing];
            self.transaction.prepare_cached(sql)?.execute(empty)?;
        }
        let need = need - 1;
        // A block longer than the one before takes more than one place, and of short ones many; so does a cap that was made smaller.
        for gone in 0.. {
            let then = pages(&self.transaction)?.0 + need;
            let enough = then <= self.pages_room + SLACK_PAGES / 2 || (gone >= GIVE_UP_MAX && then <= most);
            let Some(next) = oldest.filter(|next| !enough && next.place != place && next.number < self.floor)
            else {
                break;
            };
            oldest = self.after(next.place)?;
            self.transaction.execute("DELETE FROM block WHERE place = ?1", [next.place])?;
        }
        if pages(&self.transaction)?.0 + need > most {
            // Nothing more below the floor: the caller must give up more.
            return Err(StoreError::NoRoom);
        }
        self.transaction.prepare_cached(sql)?.execute(params![place, number.cast_signed(), head, body])?;
        let newest = Spot { place, number };
        // Where no other block is left the one that follows is this one, by the number that it had.
        let oldest = oldest.filter(|spot| spot.place != place).unwrap_or(newest);
        self.ring = Some(Extent { oldest, newest });
        Ok(newest)
    }

    /// Deletes the oldest blocks below a number, a few.
    pub(super) fn expire(&mut self, below: u64) -> Result<(), StoreError> {
        for _ in 0..GIVE_UP_MAX {
            let Some(ring) = self.ring else { break };
            if !self.delete_oldest(ring, below.min(self.floor))? {
                break;
            }
        }
        Ok(())
    }

    /// Where the file must not grow the small tables take the pages of settled blocks, too: deletes the oldest until so many bytes more
    /// fit into so many pages, or none is left.
    pub(super) fn free(&mut self, bytes: u64, most: u64) -> Result<(), StoreError> {
        // At worst their pages are half full.
        let need = bytes / (schema::PAGE_SIZE / 2) + SMALL_CHANGES;
        while pages(&self.transaction)?.0 + need > most {
            let Some(ring) = self.ring else { break };
            if !self.delete_oldest(ring, self.floor)? {
                break;
            }
        }
        Ok(())
    }

    /// `false`: it stays.
    fn delete_oldest(&mut self, ring: Extent, below: u64) -> Result<bool, StoreError> {
        // The newest stays: it tells how far its run came, and numbers go on from it.
        if ring.oldest.number >= below || ring.oldest == ring.newest {
            return Ok(false);
        }
        let Some(oldest) = self.after(ring.oldest.place)? else { return Ok(false) };
        self.transaction.execute("DELETE FROM block WHERE place = ?1", [ring.oldest.place])?;
        self.ring = Some(Extent { oldest, ..ring });
        Ok(true)
    }

    fn newest(&mut self, newest: Spot) -> Spot {
        self.ring = Some(Extent { oldest: self.ring.map_or(newest, |ring| ring.oldest), newest });
        newest
    }

    /// The block that follows in the order of the circle.
    fn after(&self, place: i64) -> Result<Option<Spot>, StoreError> {
        let one = |sql: &str, place: i64| {
            let spot = |row: &rusqlite::Row<'_>| {
                Ok(Spot { place: row.get(0)?, number: row.get::<_, i64>(1)?.cast_unsigned() })
            };
            self.transaction.prepare_cached(sql)?.query_row([place], spot).optional()
        };
        let next = one("SELECT place, number FROM block WHERE place > ?1 ORDER BY place LIMIT 1", place)?;
        Ok(match next {
            Some(next) => Some(next),
            None => one("SELECT place, number FROM block WHERE place <= ?1 ORDER BY place LIMIT 1", place)?,
        })
    }
}

/// How many batches the next block takes: of one run, ascending, within its bound; `apart`: without a hole between them.
fn cut(batches: &[Arc<Batch>], apart: bool) -> usize {
    let (mut readings, mut next) = (0, batches.first().map_or(0, |batch| batch.seq));
    let fits = |batch: &&Arc<Batch>| {
        readings += batch.readings.len();
        let ascends = if apart { batch.seq == next } else { batch.seq >= next };
        next = batch.end();
        batch.run == batches[0].run && ascends && readings <= READINGS_MAX
    };
    batches.iter().take_while(fits).count().max(1)
}

/// How many bytes a commit takes beside its blocks, at most.
pub(super) fn beside(work: &Work<'_>) -> u64 {
    let rows = work.events.len() + work.runs.len() + work.grown.len();
    let events = work.events.iter().chain(work.grown.iter().map(|(_, event)| event));
    let events: usize = events.map(|event| event_text(event).len()).sum();
    let books: usize = work.runs.iter().map(|update| books_text(update.run, &update.books).len()).sum();
    let letters: u64 = work.dead.iter().chain(work.dead_before).map(DeadLetter::bytes_at_most).sum();
    (rows * ROW_BYTES + events + books) as u64 + letters
}

/// How many pages a kind of row beside the readings may take.
pub(super) fn small_pages(pages_max: u64) -> u64 {
    pages_max / SMALL_SHARE
}

/// `small_pages`: see there.
pub(super) fn put_events(
    transaction: &Transaction<'_>,
    (work, small_pages): (&Work<'_>, u64),
    next_event: &mut i64,
    written: &mut Written,
) -> Result<(), StoreError> {
    let most = i64::try_from(small_pages.saturating_mul(EVENTS_A_PAGE)).unwrap_or(i64::MAX);
    for event in work.events {
        let sql = "INSERT INTO event (id, run, number, sent, body) VALUES (?1, ?2, ?3, 0, ?4)";
        let (run, number) = (run_key(event.run), event.number.cast_signed());
        transaction.execute(sql, params![*next_event, run, number, event_text(event)])?;
        written.event_ids.push(*next_event);
        *next_event += 1;
    }
    if !work.events.is_empty() {
        let old = "DELETE FROM event WHERE sent = 0 AND id < ?1 AND (body LIKE '%\"kind\":\"device\"%'
                   OR body LIKE '%\"kind\":\"missed\"%' OR body LIKE '%\"kind\":\"config\"%')";
        written.dropped += transaction.execute(old, [*next_event - TOLD_EVENTS_KEPT.min(most)])? as u64;
    }
    for id in work.gone {
        written.dropped += transaction.execute("DELETE FROM event WHERE id = ?1 AND sent = 0", [id])? as u64;
    }
    for (id, event) in work.grown {
        transaction.execute("UPDATE event SET body = ?2 WHERE id = ?1", params![id, event_text(event)])?;
    }
    if work.sent.is_empty() {
        return Ok(());
    }
    let sent: HashSet<(i64, i64)> =
        work.sent.iter().map(|(run, number)| (run_key(*run), number.cast_signed())).collect();
    let mut statement = transaction.prepare("SELECT id, run, number FROM event WHERE sent = 0")?;
    let waiting = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, (row.get(1)?, row.get(2)?))))?;
    let waiting: Vec<_> = waiting.collect::<Result<_, _>>()?;
    for (id, _) in waiting.iter().filter(|(_, name)| sent.contains(name)) {
        transaction.execute("UPDATE event SET sent = 1 WHERE id = ?1", [id])?;
        written.sent += 1;
    }
    let old = *next_event - SENT_EVENTS_KEPT.min(most);
    // Older backlog still needs the newest corrections of the clock.
    let sql = "DELETE FROM event WHERE sent = 1 AND id < ?1 AND id NOT IN
               (SELECT id FROM event WHERE body LIKE '%\"kind\":\"clock\"%' ORDER BY run DESC, number DESC LIMIT ?2)";
    transaction.execute(sql, params![old, CLOCKS_KEPT])?;
    Ok(())
}

/// Writes the page with the spool's name, unchanged: the first commit of each log says whose it is, and a log that says otherwise
/// than the file is not read into it (see `salvage`). Taken out and put in, because an update to the same text writes nothing.
pub(super) fn name_log(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let sql = "SELECT mark FROM spool WHERE id = 1";
    let mark: Option<String> = transaction.query_row(sql, [], |row| row.get(0)).optional()?;
    if let Some(mark) = mark {
        transaction.execute("DELETE FROM spool WHERE id = 1", [])?;
        transaction.execute("INSERT INTO spool (id, mark) VALUES (1, ?1)", [mark])?;
    }
    Ok(())
}

/// Lets the sent records about these runs wait again; gives how many.
pub(super) fn put_again(transaction: &Transaction<'_>, runs: &[RunId]) -> Result<u64, StoreError> {
    if runs.is_empty() {
        return Ok(0);
    }
    let mut again = Vec::new();
    let mut statement = transaction.prepare("SELECT id, run, number, body FROM event WHERE sent = 1")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, run, number): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let text = row.get_ref(3)?.as_str().unwrap_or_default();
        let event = event_of(run_of(run), number.cast_unsigned(), text);
        if event.is_some_and(|event| concerns(event.run, &event.body, runs)) {
            again.push(id);
        }
    }
    for id in &again {
        transaction.execute("UPDATE event SET sent = 0 WHERE id = ?1", [id])?;
    }
    Ok(again.len() as u64)
}

pub(super) fn put_runs(transaction: &Transaction<'_>, work: &Work<'_>) -> Result<(), StoreError> {
    for update in work.runs {
        let sql = "INSERT INTO run (run, ended, last_wall_us, books) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (run) DO
                   UPDATE SET ended = max(ended, excluded.ended), last_wall_us = excluded.last_wall_us, books = excluded.books";
        let books = books_text(update.run, &update.books);
        let row = params![run_key(update.run), update.ended, update.last_wall_us, books];
        transaction.prepare_cached(sql)?.execute(row)?;
    }
    for run in work.folded {
        transaction.execute("DELETE FROM run WHERE run = ?1", [run_key(*run)])?;
    }
    if let Some(mark) = work.mark {
        let text = mark_text(mark);
        transaction.prepare_cached("UPDATE spool SET mark = ?1 WHERE id = 1")?.execute([text])?;
    }
    Ok(())
}

pub(super) fn put_dead(
    transaction: &Transaction<'_>,
    dictionary: &Dictionary,
    work: &Work<'_>,
) -> Result<(), StoreError> {
    for letter in work.dead {
        let (run, seq, n) = row_name(letter);
        // A commit that landed although it seemed to fail has written it before.
        let same = "DELETE FROM dead WHERE run = ?1 AND seq = ?2 AND n = ?3";
        transaction.execute(same, params![run, seq, n])?;
        put_letter(transaction, dictionary, letter, None)?;
    }
    for letter in work.dead_before {
        let (run, seq, n) = row_name(letter);
        let same = "SELECT count(*) FROM dead WHERE run = ?1 AND seq = ?2 AND n = ?3";
        if transaction.query_row(same, params![run, seq, n], |row| row.get::<_, i64>(0))? == 0 {
            let sql = "SELECT coalesce(min(id), 1) - 1 FROM dead";
            let before = transaction.query_row(sql, [], |row| row.get(0))?;
            put_letter(transaction, dictionary, letter, Some(before))?;
        }
    }
    Ok(())
}

/// Dead letters beyond their number or their share of the cap go, the oldest first; gives how many.
pub(super) fn cut_letters(transaction: &Transaction<'_>, small_pages: u64) -> Result<u64, StoreError> {
    let old = "DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?1";
    let gone = transaction.execute(old, [DEAD_LETTERS_MAX])?;
    let old = "DELETE FROM dead WHERE id <= (SELECT max(id) FROM (SELECT id,
               sum(length(head) + length(body) + length(reason)) OVER (ORDER BY id DESC) AS bytes FROM dead)
               WHERE bytes > ?1)";
    Ok((gone + transaction.execute(old, [(small_pages * schema::PAGE_SIZE).cast_signed()])?) as u64)
}

fn row_name(letter: &DeadLetter) -> (i64, i64, i64) {
    let (run, seq, n) = letter.name;
    (run_key(run), seq.cast_signed(), n.cast_signed())
}

/// Without an `id` it becomes the newest.
fn put_letter(
    transaction: &Transaction<'_>,
    dictionary: &Dictionary,
    letter: &DeadLetter,
    id: Option<i64>,
) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    if let Some(batch) = &letter.batch {
        block::encode(std::slice::from_ref(batch), dictionary, &mut bytes)?;
    }
    let (head, body) = bytes.split_at(HEADER_LENGTH.min(bytes.len()));
    let sql = "INSERT INTO dead (id, at_us, reason, run, seq, n, head, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (run, seq, n) = row_name(letter);
    transaction.execute(sql, params![id, letter.at_us, letter.reason, run, seq, n, head, body])?;
    Ok(())
}
