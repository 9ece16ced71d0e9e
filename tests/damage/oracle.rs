//! Where each block's own bytes lie, in file or log: read from the file before it is damaged, with nothing of the spool's own
//! code. SQLite's file format: <https://sqlite.org/fileformat2.html>, sections 1.5, 1.6 and 4; the head of a block: the
//! documentation of the format.

use std::collections::HashMap;
use std::path::Path;

/// Page bytes.
pub(crate) const PAGE: usize = 1024;

/// In which file, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) in_log: bool,
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A block as the file holds it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) run: (u32, u32),
    pub(crate) first: u64,
    pub(crate) next: u64,
    pub(crate) own: Vec<Stretch>,
}

/// What the file is made of.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) blocks: Vec<Block>,
    /// Interior pages of the table of blocks.
    pub(crate) interior: Vec<Stretch>,
    /// Leaf pages of the table of blocks.
    pub(crate) leaves: Vec<Stretch>,
}

struct Pages {
    file: Vec<u8>,
    log: Vec<u8>,
    in_log: HashMap<u32, usize>,
}

fn be16(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"))
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut number = 0;
    for i in 0..9 {
        let byte = bytes[*at];
        *at += 1;
        if i == 8 {
            return number << 8 | u64::from(byte);
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            break;
        }
    }
    number
}

impl Pages {
    fn read(directory: &Path) -> Self {
        let read = |name: &str| std::fs::read(directory.join(name)).unwrap_or_default();
        let (file, log) = (read("spool.db"), read("spool.db-wal"));
        let (mut in_log, mut open, mut at) = (HashMap::new(), Vec::new(), 32);
        while at + 24 + PAGE <= log.len() && log[at + 8..at + 16] == log[16..24] {
            open.push((be32(&log, at), at + 24));
            if be32(&log, at + 4) != 0 {
                in_log.extend(open.drain(..));
            }
            at += 24 + PAGE;
        }
        Self { file, log, in_log }
    }

    fn place(&self, page: u32) -> Stretch {
        let from = self.in_log.get(&page).copied();
        let in_file = (page as usize - 1) * PAGE;
        let (in_log, from) = (from.is_some(), from.unwrap_or(in_file));
        Stretch { in_log, from, to: from + PAGE }
    }

    fn bytes(&self, stretch: Stretch) -> &[u8] {
        let all = if stretch.in_log { &self.log } else { &self.file };
        &all[stretch.from..stretch.to]
    }
}

/// Reads a whole, undamaged state directory.
pub(crate) fn read(directory: &Path) -> Image {
    let pages = Pages::read(directory);
    let mut image = Image::default();
    let mut root = 0;
    walk(
        &pages,
        1,
        &mut |_, payload| {
            // type, name, tbl_name, rootpage, sql
            let text = String::from_utf8_lossy(payload);
            if text.contains("CREATE TABLE block") {
                let mut at = 0;
                let header = varint(payload, &mut at) as usize;
                let mut kinds = Vec::new();
                while at < header {
                    kinds.push(varint(payload, &mut at));
                }
                let before: usize = kinds[..3].iter().map(|kind| (*kind as usize - 13) / 2).sum();
                let length = [0, 1, 2, 3, 4, 6, 8][kinds[3] as usize];
                let from = header + before;
                root = payload[from..from + length].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
            }
        },
        &mut Image::default(),
    );
    let mut found = Vec::new();
    walk(
        &pages,
        root,
        &mut |own, payload| {
            let head = payload.windows(4).position(|four| four == b"FSB1").expect("a block");
            let le64 =
                |at: usize| u64::from_le_bytes(payload[head + at..head + at + 8].try_into().expect("eight"));
            let le32 =
                |at: usize| u32::from_le_bytes(payload[head + at..head + at + 4].try_into().expect("four"));
            found.push(Block { run: (le32(16), le32(20)), first: le64(24), next: le64(32), own });
        },
        &mut image,
    );
    image.blocks = found;
    image
}

/// What is done with each cell: its own bytes, and its payload.
type Each<'a> = &'a mut dyn FnMut(Vec<Stretch>, &[u8]);

fn walk(pages: &Pages, page: u32, each: Each<'_>, image: &mut Image) {
    let place = pages.place(page);
    let bytes = pages.bytes(place).to_vec();
    let start = if page == 1 { 100 } else { 0 };
    let cells = be16(&bytes, start + 3);
    if bytes[start] == 5 {
        image.interior.push(place);
        for cell in 0..cells {
            walk(pages, be32(&bytes, be16(&bytes, start + 12 + 2 * cell)), each, image);
        }
        return walk(pages, be32(&bytes, start + 8), each, image);
    }
    assert_eq!(bytes[start], 13, "a leaf of a table");
    image.leaves.push(place);
    for cell in 0..cells {
        let from = be16(&bytes, start + 8 + 2 * cell);
        let mut at = from;
        let length = varint(&bytes, &mut at) as usize;
        varint(&bytes, &mut at);
        let (most, least) = (PAGE - 35, (PAGE - 12) * 32 / 255 - 23);
        let mut local = length;
        if length > most {
            local = least + (length - least) % (PAGE - 4);
            local = if local > most { least } else { local };
        }
        let mut payload = bytes[at..at + local].to_vec();
        let end = at + local + if local < length { 4 } else { 0 };
        let mut own = vec![Stretch { from: place.from + from, to: place.from + end, ..place }];
        let mut next = if local < length { be32(&bytes, at + local) } else { 0 };
        while next != 0 {
            let place = pages.place(next);
            let more = pages.bytes(place);
            let take = (length - payload.len()).min(PAGE - 4);
            payload.extend_from_slice(&more[4..4 + take]);
            own.push(Stretch { to: place.from + 4 + take, ..place });
            next = be32(more, 0);
        }
        each(own, &payload);
    }
}
