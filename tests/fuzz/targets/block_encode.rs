//! Any batches: what is encoded decodes to the same, to the last bit, and its header says what is in it.
#![no_main]

use fieldspool::spool::block::{Header, decode, encode};
use fieldspool_fuzz::{DICTIONARY, batches, same};
use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(batches) = batches(&mut Unstructured::new(data)) else { return };
    let mut block = Vec::new();
    let Ok(header) = encode(&batches, &DICTIONARY, &mut block) else {
        assert!(batches.is_empty(), "only no batch at all is refused");
        return;
    };
    assert_eq!(Header::checked(&block).map(|(header, _)| header), Ok(header));
    assert_eq!((header.first, header.next), (batches[0].seq, batches[batches.len() - 1].end()));
    let decoded = decode(&block, &DICTIONARY).expect("what was encoded can be decoded");
    assert_eq!(batches.len(), decoded.len());
    assert!(batches.iter().zip(&decoded).all(|(a, b)| same(a, b)), "{batches:?} {decoded:?}");
});
