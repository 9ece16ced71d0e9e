//! Records of a table's leaf: SQLite's file format, sections 1.6 and 2.1. Bytes in, columns out; on anything that is no record of ours: `None`.

/// The name of a spool in the row of its table, 32 hexadecimal digits.
pub(super) type Name = [u8; 32];

/// One value of a record.
pub(super) enum Column {
    Null,
    Number(i64),
    /// Text or blob.
    Other(Vec<u8>),
}

/// One cell of a table's leaf.
pub(super) struct Record {
    pub(super) rowid: i64,
    pub(super) columns: Vec<Column>,
}

/// The name on the page of table `spool`: its one row begins with it. The rest of the row may stand elsewhere and is not asked
/// for; a piece of it cannot make another name, which has its length and stands between fixed texts.
pub(super) fn name_on(page: &[u8]) -> Option<Name> {
    if *page.first()? != 0x0d || page.get(3..5)? != [0, 1] {
        return None;
    }
    let at = usize::from(u16::from_be_bytes(*page.get(8..)?.first_chunk()?));
    let mut cell = page.get(at..)?;
    let (_, rowid) = (varint(&mut cell)?, varint(&mut cell)?);
    let mut body = cell;
    let header = usize::try_from(varint(&mut body)?).ok()?;
    let name = cell.get(header..)?.strip_prefix(b"{\"id\":\"")?;
    let (name, rest) = name.split_first_chunk::<32>()?;
    let whole = rowid == 1 && rest.starts_with(b"\",\"") && name.iter().all(u8::is_ascii_hexdigit);
    whole.then_some(*name)
}

pub(super) fn is_block(record: &Record) -> bool {
    matches!(&*record.columns, [Column::Null, Column::Number(_), Column::Other(head), ..]
        if head.starts_with(&crate::spool::block::MAGIC))
}

/// SQLite's varint: 7 bits a byte, highest first; the ninth byte gives all eight.
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if at == 8 {
            return Some(number << 8 | u64::from(*byte));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

/// Whether the head of a record accounts for all its bytes.
pub(super) fn takes(payload: &[u8], length: usize) -> bool {
    let mut rest = payload;
    let Some(header) = varint(&mut rest).and_then(|header| usize::try_from(header).ok()) else {
        return false;
    };
    let Some(mut types) = payload.get(payload.len() - rest.len()..header) else { return false };
    let mut sum = header;
    while !types.is_empty() {
        let Some(kind) = varint(&mut types) else { return false };
        let bytes = match kind {
            1..=6 => [1, 2, 3, 4, 6, 8][usize::try_from(kind).unwrap_or(1) - 1],
            0 | 8 | 9 => 0,
            7 | 10 | 11 => return false,
            kind => usize::try_from((kind - 12) / 2).unwrap_or(usize::MAX),
        };
        sum = sum.saturating_add(bytes);
    }
    sum == length
}

/// The columns of a record.
pub(super) fn columns(payload: &[u8]) -> Option<Vec<Column>> {
    let mut rest = payload;
    let header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = payload.get(payload.len() - rest.len()..header)?;
    let mut body = payload.get(header..)?;
    let mut columns = Vec::new();
    while !types.is_empty() {
        let (column, length) = match varint(&mut types)? {
            0 => (Column::Null, 0),
            kind @ 1..=6 => {
                let length = [1, 2, 3, 4, 6, 8][usize::try_from(kind).ok()? - 1];
                (Column::Number(integer(body.get(..length)?)), length)
            }
            kind @ (8 | 9) => (Column::Number(i64::from(kind == 9)), 0),
            // Floats and what is reserved: none of our tables has them.
            7 | 10 | 11 => return None,
            kind => {
                let length = usize::try_from((kind - 12) / 2).ok()?;
                (Column::Other(body.get(..length)?.to_vec()), length)
            }
        };
        body = body.get(length..)?;
        columns.push(column);
    }
    Some(columns)
}

/// A big-endian integer of up to eight bytes, with its sign.
fn integer(bytes: &[u8]) -> i64 {
    let sign = bytes.first().is_some_and(|first| first & 0x80 != 0);
    bytes.iter().fold(if sign { -1 } else { 0 }, |number, byte| number << 8 | i64::from(*byte))
}
