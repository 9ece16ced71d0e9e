//! The debt ledger: which answers may still come.
//!
//! An RTU answer does not say which request it answers. Every request on the wire without a *believed* answer is
//! a debt (unit, function, length of the answer) until its device can no longer answer. While a debt is open, no
//! request of equal shape goes to that unit: its answer could not be told from the late one. Other shapes and other
//! units go on. A late answer settles its debt.

use std::time::Instant;

use crate::modbus::transaction::Ask;

#[derive(Clone, Copy, Debug)]
struct Debt {
    unit: u8,
    function: u8,
    data_bytes: u8,
    until: Instant,
}

/// The open debts of one line. Bounded: one for each unit and shape.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    debts: Vec<Debt>,
}

impl Ledger {
    /// Until when a request of this shape must wait.
    pub(super) fn held(&mut self, ask: Ask, now: Instant) -> Option<Instant> {
        self.debts.retain(|debt| debt.until > now);
        self.debts
            .iter()
            .filter(|debt| debt.is_of(ask.unit, ask.function, ask.data_bytes))
            .map(|d| d.until)
            .max()
    }

    /// The request got no believed answer.
    pub(super) fn owe(&mut self, ask: Ask, until: Instant) {
        self.debts.retain(|debt| !debt.is_of(ask.unit, ask.function, ask.data_bytes));
        self.debts.push(Debt { unit: ask.unit, function: ask.function, data_bytes: ask.data_bytes, until });
    }

    /// A late answer came. Whether it was owed.
    pub(super) fn settle(&mut self, unit: u8, function: u8, data_bytes: u8) -> bool {
        let before = self.debts.len();
        self.debts.retain(|debt| !debt.is_of(unit, function, data_bytes));
        self.debts.len() < before
    }

    /// Whether an exception of this unit and function could belong to another request than the present one.
    pub(super) fn is_owed_by(&self, unit: u8, function: u8, now: Instant) -> bool {
        self.debts.iter().any(|debt| debt.unit == unit && debt.function == function && debt.until > now)
    }
}

impl Debt {
    fn is_of(&self, unit: u8, function: u8, data_bytes: u8) -> bool {
        (self.unit, self.function, self.data_bytes) == (unit, function, data_bytes)
    }
}
