//! The ring of blocks in table `block`: finding and walking, by both connections. Writing is in `store`.
//!
//! Numbers ascend around the circle of places (see `schema`), so a block is found by bisection over the places: about
//! forty look-ups by primary key, whatever the size of the file, and nothing per block in memory.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::block::Header;
use super::shared::off_the_lock;

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Its place on the circle.
    pub place: i64,
    /// Its number.
    pub number: u64,
}

/// A block without its body.
#[derive(Clone, Copy, Debug)]
pub struct Heading {
    /// Where it lies.
    pub spot: Spot,
    /// What it is about; `None` if its head is damaged.
    pub header: Option<Header>,
    /// Bytes of head and body.
    pub bytes: u64,
}

/// The two ends of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The block that goes first.
    pub oldest: Spot,
    /// The block that came last.
    pub newest: Spot,
}

/// Room between two places at first: 2^25 blocks fit before the circle is full of them.
const SPACING: i64 = 1 << 38;

/// A gap in the circle is used up by this share of what is left of it, so that it never runs out at once.
const GAP_SHARE: u64 = 64;

fn spot(row: &Row<'_>) -> rusqlite::Result<Spot> {
    Ok(Spot { place: row.get(0)?, number: row.get::<_, i64>(1)?.cast_unsigned() })
}

fn heading(row: &Row<'_>) -> rusqlite::Result<Heading> {
    let header = Header::read(row.get_ref(2)?.as_blob().unwrap_or_default()).ok();
    Ok(Heading { spot: spot(row)?, header, bytes: row.get::<_, i64>(3)?.cast_unsigned() })
}

/// Both ends; `None` while the ring is empty.
pub fn extent(connection: &Connection) -> rusqlite::Result<Option<Extent>> {
    off_the_lock();
    let one = |order: &str| {
        let sql = format!("SELECT place, number FROM block ORDER BY place {order} LIMIT 1");
        connection.prepare_cached(&sql)?.query_row([], spot).optional()
    };
    let (Some(least), Some(greatest)) = (one("ASC")?, one("DESC")?) else { return Ok(None) };
    if least.number <= greatest.number {
        return Ok(Some(Extent { oldest: least, newest: greatest }));
    }
    let oldest = bisect(connection, least.place, greatest.place, |number| number < least.number)?;
    let oldest = oldest.unwrap_or(greatest);
    let sql = "SELECT place, number FROM block WHERE place < ?1 ORDER BY place DESC LIMIT 1";
    let newest = connection.prepare_cached(sql)?.query_row([oldest.place], spot).optional()?.unwrap_or(least);
    Ok(Some(Extent { oldest, newest }))
}

/// The first block in the order of places, from `low` to `high`, for which `past` holds; `past` must hold for all behind it too.
fn bisect(
    connection: &Connection,
    mut low: i64,
    high: i64,
    past: impl Fn(u64) -> bool,
) -> rusqlite::Result<Option<Spot>> {
    let sql = "SELECT place, number FROM block WHERE place BETWEEN ?1 AND ?2 ORDER BY place LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found = None;
    let mut end = high;
    while low <= end {
        let middle = low.midpoint(end);
        match statement.query_row(params![middle, high], spot).optional()? {
            Some(spot) if !past(spot.number) => match spot.place.checked_add(1) {
                Some(next) => low = next,
                None => break,
            },
            passed => {
                found = passed.or(found);
                match middle.checked_sub(1) {
                    Some(before) => end = before,
                    None => break,
                }
            }
        }
    }
    Ok(found)
}

/// The oldest block with at least this number.
pub fn locate(connection: &Connection, number: u64) -> rusqlite::Result<Option<Spot>> {
    off_the_lock();
    let Some(extent) = extent(connection)? else { return Ok(None) };
    let Extent { oldest, newest } = extent;
    if number <= oldest.number {
        return Ok(Some(oldest));
    }
    if number > newest.number {
        return Ok(None);
    }
    if oldest.place <= newest.place {
        return bisect(connection, oldest.place, newest.place, |found| found >= number);
    }
    // The ring wraps: from the oldest to the end of the circle, then from its beginning to the newest.
    if let Some(spot) = bisect(connection, oldest.place, i64::MAX, |found| found >= number)? {
        return Ok(Some(spot));
    }
    bisect(connection, i64::MIN, newest.place, |found| found >= number)
}

/// Up to `limit` headings from a spot on, oldest first.
pub fn headings(connection: &Connection, from: Spot, limit: usize) -> rusqlite::Result<Vec<Heading>> {
    off_the_lock();
    let sql = "SELECT place, number, head, length(head) + length(body) FROM block WHERE place >= ?1
               ORDER BY place LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut found: Vec<Heading> = Vec::new();
    for start in [from.place, i64::MIN] {
        let mut rows = statement.query(params![start, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        while let Some(row) = rows.next()? {
            let heading = heading(row)?;
            let last = found.last().map_or(from.number, |last: &Heading| last.spot.number + 1);
            if heading.spot.number < last || found.len() >= limit {
                break;
            }
            found.push(heading);
        }
    }
    Ok(found)
}

/// Head and body of a block, joined; `None` if another block has taken the place.
pub fn block(connection: &Connection, spot: Spot) -> rusqlite::Result<Option<Vec<u8>>> {
    off_the_lock();
    let sql = "SELECT head, body FROM block WHERE place = ?1 AND number = ?2";
    let join = |row: &Row<'_>| {
        let (head, body) = (row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
        Ok([head, body].concat())
    };
    connection.prepare_cached(sql)?.query_row(params![spot.place, spot.number.cast_signed()], join).optional()
}

/// Whether a block that a walk has passed is found by its place too: a damaged page between can hide it from who looks for it.
pub fn stands(connection: &Connection, spot: Spot) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM block WHERE place = ?1 AND number = ?2";
    connection.prepare_cached(sql)?.exists(params![spot.place, spot.number.cast_signed()])
}

/// A place between the newest and the oldest block that no block has; `None` if there is none.
pub fn free_place(extent: Option<Extent>) -> Option<i64> {
    let Some(Extent { oldest, newest }) = extent else { return Some(0) };
    let (from, gap) = if newest.place >= oldest.place {
        if let Some(place) = newest.place.checked_add(SPACING) {
            return Some(place);
        }
        // At the end of the circle it goes on from its beginning.
        (i64::MIN, oldest.place.abs_diff(i64::MIN))
    } else {
        (newest.place, oldest.place.abs_diff(newest.place))
    };
    if gap < 2 { None } else { from.checked_add_unsigned((gap / GAP_SHARE).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_round_the_circle_for_ever_while_old_blocks_go() {
        let spot = |number, place| Spot { place, number };
        let mut ring: Vec<Spot> = vec![spot(0, i64::MAX - 40 * SPACING)];
        for number in 1..200_000 {
            let (Some(oldest), Some(newest)) = (ring.first(), ring.last()) else { panic!("never empty") };
            let place = free_place(Some(Extent { oldest: *oldest, newest: *newest })).expect("a place");
            let between = if newest.place >= oldest.place {
                place > newest.place || place < oldest.place
            } else {
                place > newest.place && place < oldest.place
            };
            assert!(between, "{place} lies between {newest:?} and {oldest:?}");
            ring.push(spot(number, place));
            if ring.len() > 20 {
                ring.remove(0);
            }
        }
    }
}
