//! Whether a peer that hangs up says something about one device behind it, or about itself.
//!
//! Some gateways close the connection when a unit behind them does not answer. That is this unit's silence: were it
//! taken for a line that is down, each poll of the unit would cost its neighbours theirs. But a peer that hangs up at
//! whatever it is asked is a line that is down. So it is the unit's own as long as another one was answered when it was last
//! asked, and at most one unit that was answered before has been hung up at since the last answer. (A second one: the line.)
//!
//! Pure. It knows units by their id, and only what it is told: an answer, or a connection that was closed while one was
//! awaited.

use std::collections::{BTreeMap, BTreeSet};

/// What is known of a peer with units behind it.
#[derive(Clone, Debug, Default)]
pub(super) struct HangUps {
    /// Units that were answered for when they were last asked. (Silence changes nothing.)
    answered: BTreeSet<u8>,
    /// Units that left them since the last answer of any.
    lost: usize,
    /// Units at which it hung up when they were last asked.
    hung_up_at: BTreeSet<u8>,
    /// Those of which that is the own silence, and whether it was said in the log.
    silent: BTreeMap<u8, bool>,
}

impl HangUps {
    /// The peer answered for a unit.
    pub(super) fn answered(&mut self, unit: u8) {
        self.answered.insert(unit);
        self.hung_up_at.remove(&unit);
        self.silent.remove(&unit);
        self.lost = 0;
    }

    /// A connection that worked turned out closed when this unit was asked. Whether that may have another reason, and the
    /// unit is to be asked again: not if it is the second time, and others are answered. (Some peers take no new connection for a
    /// moment.)
    pub(super) fn asks_again(&mut self, unit: u8) -> bool {
        let is_first = self.hung_up_at.insert(unit);
        is_first || self.answered.iter().all(|&answered| answered == unit)
    }

    /// The peer hung up when this unit was asked. `true`: that is the unit's own silence.
    pub(super) fn is_of_the_device(&mut self, unit: u8) -> bool {
        self.lost += usize::from(self.answered.remove(&unit));
        let of_the_device = self.lost < 2 && !self.answered.is_empty();
        if of_the_device {
            self.silent.entry(unit).or_insert(false);
        }
        of_the_device
    }

    /// Whether it is to be said now that its hanging up is taken for the silence of this unit: once, until the unit is answered.
    pub(super) fn edge(&mut self, unit: u8) -> bool {
        self.silent.get_mut(&unit).is_some_and(|said| !std::mem::replace(said, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer with so many units does: for each that is asked, in this order, whether it answers. Returns
    /// whether each hang-up was the device's.
    fn hung_up(asked: &[(u8, bool)]) -> Vec<bool> {
        let mut hang_ups = HangUps::default();
        let mut verdicts = Vec::new();
        for &(unit, answers) in asked {
            if answers {
                hang_ups.answered(unit);
            } else {
                verdicts.push(hang_ups.is_of_the_device(unit));
            }
        }
        verdicts
    }

    #[test]
    fn a_unit_at_which_the_peer_hangs_up_is_silent_as_long_as_another_one_is_answered() {
        assert_eq!(hung_up(&[(1, true), (2, false), (2, false), (2, false)]), [true; 3]);
        // Two that fail one behind the other: the second is the line's once.
        let round = [(1, true), (4, false), (5, false)];
        let all = [&[(4, true), (5, true)][..], &round, &round, &round].concat();
        assert_eq!(hung_up(&all), [true, false, true, true, true, true]);
    }

    #[test]
    fn a_unit_is_asked_again_on_a_new_connection_once_until_it_is_answered() {
        let mut hang_ups = HangUps::default();
        hang_ups.answered(5);
        assert_eq!([5, 5].map(|unit| hang_ups.asks_again(unit)), [true; 2], "nobody else is answered");
        hang_ups.answered(1);
        assert_eq!([5, 6, 6].map(|unit| hang_ups.asks_again(unit)), [false, true, false]);
        hang_ups.answered(6);
        assert!(hang_ups.asks_again(6));
    }

    #[test]
    fn that_it_hangs_up_at_a_unit_is_said_once_until_the_unit_is_answered() {
        let mut hang_ups = HangUps::default();
        assert!(!hang_ups.is_of_the_device(5) && !hang_ups.edge(5), "the line is down");
        hang_ups.answered(1);
        for _ in 0..2 {
            assert!(hang_ups.is_of_the_device(5) && hang_ups.edge(5));
            assert!(hang_ups.is_of_the_device(5) && !hang_ups.edge(5) && !hang_ups.edge(1));
            hang_ups.answered(5);
            assert!(!hang_ups.edge(5));
        }
    }

    #[test]
    fn a_peer_that_hangs_up_at_all_is_a_line_that_is_down() {
        assert_eq!(hung_up(&[(1, false), (2, false), (1, false)]), [false; 3], "from the beginning");
        assert_eq!(hung_up(&[(1, true), (1, false), (1, false)]), [false; 2], "one unit alone");
        let well = [(1, true), (2, true), (3, true), (9, true)];
        let down = [(1, false), (2, false), (3, false), (1, false), (2, false)];
        let all = [&well[..], &down].concat();
        assert_eq!(hung_up(&all), [true, false, false, false, false], "9 is asked seldom, and no excuse");
    }
}
