//! A simulated plant for `fieldspool demo` and for tests: values that move as in a plant, served over the same wires
//! as real instruments.

mod pty;

pub use pty::Pty;
