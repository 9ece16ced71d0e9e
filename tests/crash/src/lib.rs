//! Power cuts for the spool: a disk that forgets what was not synced ([`disk`], under SQLite and libc by [`sys`]), lives of a
//! spool on it that end at any operation ([`life`]), and a ledger outside that says what must be there afterwards ([`book`]).
//!
//! The spool is the shipped code, taken step by step by one thread at times that are made up (`spool::stepped`), so that a
//! seed repeats a schedule exactly. Nothing in it knows of this crate: the default VFS of the process and a few
//! functions of libc are replaced, here alone.
#![allow(clippy::missing_panics_doc, reason = "what must not be is said by a panic: this crate is a test")]

pub mod book;
pub mod disk;
pub mod life;
pub mod plant;
pub mod run;
mod survive;
pub mod sys;
