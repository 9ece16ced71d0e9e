//! Any bytes as a block: decoding neither panics nor takes more memory than 16 384 readings and the input account for; what
//! decodes is encoded again and decodes to the same.
//!
//! First byte: bit 0 says whether the rest is sealed (length, fingerprint, checksum) before it is read.
#![no_main]

use std::sync::Arc;

use fieldspool::spool::block::{READINGS_MAX, decode, encode};
use fieldspool_fuzz::{DICTIONARY, memory, same, seal};
use libfuzzer_sys::fuzz_target;

/// A reading at most: it may be a batch by itself, in all the forms it has on its way.
const BYTES_A_READING: usize = 640;

/// Lists of numbers are kept in a wider form than they are written in.
const BYTES_A_BYTE: usize = 32;

fuzz_target!(|data: &[u8]| {
    let Some((how, block)) = data.split_first() else { return };
    let mut block = block.to_vec();
    if how & 1 == 1 {
        seal(&mut block);
    }
    let dictionary = &*DICTIONARY;
    let (most, decoded) = memory::most(|| decode(&block, dictionary));
    let said =
        decoded.as_ref().map_or(READINGS_MAX, |batches| batches.iter().map(|b| b.readings.len()).sum());
    let allowed = BYTES_A_READING * said + BYTES_A_BYTE * block.len() + 4096;
    assert!(most <= allowed, "{most} bytes for a block of {}, allowed {allowed}", block.len());
    let Ok(batches) = decoded else { return };
    assert!(said <= READINGS_MAX);
    let batches: Vec<_> = batches.into_iter().map(Arc::new).collect();
    let mut again = Vec::new();
    encode(&batches, dictionary, &mut again).expect("what was decoded can be encoded");
    let second = decode(&again, dictionary).expect("what was encoded can be decoded");
    assert_eq!(batches.len(), second.len());
    assert!(batches.iter().zip(&second).all(|(a, b)| same(a, b)), "{batches:?} {second:?}");
});
