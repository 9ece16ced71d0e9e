//! Any bytes as a spool that was set aside: the search ends, in bounded memory, without a panic.
//!
//! First byte: how much of the rest is the file, in 255ths; what is behind is its log.
#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use fieldspool::spool::salvage::{Salvage, log_fault};
use fieldspool_fuzz::memory;
use libfuzzer_sys::fuzz_target;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = PathBuf::from("/dev/shm");
    let parent = if shared.is_dir() { shared } else { std::env::temp_dir() };
    let folder = parent.join(format!("fieldspool-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder.join("spool.db")
});

/// Looked at in one go: all that an input has.
const PAGES: u32 = 1 << 20;

/// A page may be looked at six times, and a cell may reach over many pages.
const BYTES_A_BYTE: usize = 128;

fuzz_target!(|data: &[u8]| {
    let Some((share, rest)) = data.split_first() else { return };
    let (file, log) = rest.split_at(rest.len() * usize::from(*share) / 255);
    fs::write(&*FILE, file).expect("written");
    fs::write(FILE.with_extension("db-wal"), log).expect("written");
    let (most, ()) = memory::most(|| {
        let _ = log_fault(&FILE);
        let mut salvage = Salvage::open(&FILE).expect("opens");
        let mut turns = 0;
        while salvage.step(PAGES).is_some() {
            turns += 1;
            assert!(turns < 16, "the search does not end");
        }
        drop(salvage.learned());
    });
    assert!(most <= (1 << 20) + BYTES_A_BYTE * rest.len(), "{most} bytes for {}", rest.len());
});
