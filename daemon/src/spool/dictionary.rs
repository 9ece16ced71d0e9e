//! The dictionary: which number stands for which shape in the blocks of one file.
//!
//! An entry is immutable and is written in the transaction of the first block that uses it. Its body is JSON, so that
//! a person with any SQLite tool can read it:
//! `{"gateway":"g","device":"d","points":[{"name":"p","kind":"f64","unit":"V","json_string":false}]}`

use std::collections::HashMap;
use std::sync::Arc;

use fieldspool_drivers::ValueKind;
use serde::{Deserialize, Serialize};

use crate::model::{PointMeta, Shape};

/// Forget which `Arc` is which shape after this many: a reload makes a new one for each device.
const POINTERS_MAX: usize = 4096;

/// One entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it stands for.
    pub shape: Arc<Shape>,
    /// CRC-32C of its stored body.
    pub crc: u32,
}

/// All entries of one file.
#[derive(Debug, Default)]
pub struct Dictionary {
    entries: HashMap<u32, Entry>,
    /// The greatest number that was ever given, also to entries that cannot be read any more.
    greatest: u32,
    ids: HashMap<Arc<Shape>, u32>,
    /// By address: hashing a shape with a hundred points for each batch would cost more than encoding it. The `Arc` is
    /// kept, so that no other shape takes the address.
    pointers: HashMap<usize, (Arc<Shape>, u32)>,
}

impl Dictionary {
    /// The entry of a number.
    pub fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All of them, in no order.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// The number of a shape, if it has one.
    pub fn id(&self, shape: &Arc<Shape>) -> Option<u32> {
        let known = self.pointers.get(&(Arc::as_ptr(shape).addr())).map(|(_, id)| *id);
        known.or_else(|| self.ids.get(shape).copied())
    }

    /// Makes [`Dictionary::id`] quick for this very `Arc`.
    pub fn remember(&mut self, shape: &Arc<Shape>) {
        let address = Arc::as_ptr(shape).addr();
        if self.pointers.contains_key(&address) {
            return;
        }
        if let Some(id) = self.ids.get(shape).copied() {
            if self.pointers.len() >= POINTERS_MAX {
                self.pointers.clear();
            }
            self.pointers.insert(address, (shape.clone(), id));
        }
    }

    /// The number that the next new entry gets: one more than the greatest, from 1.
    pub fn next_id(&self) -> u32 {
        self.greatest.saturating_add(1)
    }

    /// Takes an entry that is stored; `false` if the body is none.
    pub fn insert(&mut self, id: u32, body: &[u8]) -> bool {
        self.greatest = self.greatest.max(id);
        let Some(shape) = shape_from(body) else { return false };
        let shape = Arc::new(shape);
        self.ids.insert(shape.clone(), id);
        self.entries.insert(id, Entry { shape, crc: crc32c::crc32c(body) });
        true
    }

    /// Forgets an entry whose transaction failed.
    pub fn remove(&mut self, id: u32) {
        if let Some(entry) = self.entries.remove(&id) {
            self.ids.remove(&entry.shape);
            self.pointers.retain(|_, (_, known)| *known != id);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StoredShape<'a> {
    gateway: String,
    device: String,
    #[serde(borrow)]
    points: Vec<StoredPoint<'a>>,
}

#[derive(Serialize, Deserialize)]
struct StoredPoint<'a> {
    name: String,
    kind: &'a str,
    unit: String,
    json_string: bool,
}

/// The stored body of a shape.
pub fn body_of(shape: &Shape) -> Vec<u8> {
    let points = shape.points.iter().map(|point| StoredPoint {
        name: point.name.to_string(),
        kind: kind_word(point.kind),
        unit: point.unit.to_string(),
        json_string: point.json_string,
    });
    let stored = StoredShape {
        gateway: shape.gateway.to_string(),
        device: shape.device.to_string(),
        points: points.collect(),
    };
    serde_json::to_vec(&stored).expect("strings and booleans are always JSON")
}

fn shape_from(body: &[u8]) -> Option<Shape> {
    let stored: StoredShape<'_> = serde_json::from_slice(body).ok()?;
    let points = stored.points.into_iter().map(|point| {
        Some(PointMeta {
            name: point.name.into(),
            kind: kind_from(point.kind)?,
            unit: point.unit.into(),
            json_string: point.json_string,
        })
    });
    Some(Shape::new(stored.gateway.into(), stored.device.into(), points.collect::<Option<_>>()?))
}

fn kind_word(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Bool => "bool",
        ValueKind::Int => "int",
        ValueKind::Uint => "uint",
        ValueKind::F32 => "f32",
        ValueKind::F64 => "f64",
        ValueKind::Text => "text",
    }
}

fn kind_from(word: &str) -> Option<ValueKind> {
    Some(match word {
        "bool" => ValueKind::Bool,
        "int" => ValueKind::Int,
        "uint" => ValueKind::Uint,
        "f32" => ValueKind::F32,
        "f64" => ValueKind::F64,
        "text" => ValueKind::Text,
        _ => return None,
    })
}
