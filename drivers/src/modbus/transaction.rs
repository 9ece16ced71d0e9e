//! One request and its answer, the same over every envelope.

use std::time::{Duration, Instant};

use super::plan::Request;

/// A read request and what its answer must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) unit: u8,
    /// 1 to 4.
    pub(crate) function: u8,
    pub(crate) address: u16,
    /// Registers or coils.
    pub(crate) count: u16,
    /// Data bytes that the answer must have.
    pub(crate) data_bytes: u8,
}

impl Ask {
    pub(super) fn new(unit: u8, request: &Request) -> Self {
        let (function, data_bytes) = request.shape();
        Self { unit, function, address: request.address, count: request.count, data_bytes }
    }

    /// Unit id and request as both envelopes carry them: unit, function, address, count.
    pub(crate) fn body(self) -> [u8; 6] {
        let [address_high, address_low] = self.address.to_be_bytes();
        let [count_high, count_low] = self.count.to_be_bytes();
        [self.unit, self.function, address_high, address_low, count_high, count_low]
    }
}

/// A believed answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `None`: data, held by whoever received it. Else the exception code.
    pub(crate) exception: Option<u8>,
    /// When it began to arrive.
    pub(crate) at: Instant,
    /// From the end of the request until then.
    pub(crate) turnaround: Duration,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing that could be believed before the deadline.
    Silent,
    /// Something like the answer, damaged.
    Damaged,
    /// The line never fell silent before the deadline; nothing was sent.
    NeverQuiet,
    /// Nothing was sent: an answer of equal shape may still come until then.
    Held(Instant),
    /// The port or connection is down; nothing was sent.
    LinkDown,
    /// The port or connection went down while the answer was awaited. Some devices hang up at a request that they do not
    /// like.
    HungUp,
}
