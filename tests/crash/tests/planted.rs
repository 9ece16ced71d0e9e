//! The harness is honest: bugs that are planted are found, and a card that lies ends in quarantine and salvage,
//! not in silence.

use std::time::Duration;

use fieldspool_crash::disk::Faults;
use fieldspool_crash::life::{Plan, Planted};
use fieldspool_crash::run::{Failure, Order, Scenes};

/// Where a planted bug must have been found: a few seconds of cuts.
const SOON: Order = Order { first: 1, cuts: 1500, threads: 2, most: Duration::from_secs(600) };

fn find(plan: Plan) -> Failure {
    let (tally, failure) = Scenes::make().run(SOON, plan);
    failure.unwrap_or_else(|| panic!("{} cuts and nothing was found: {plan:?}", tally.cuts))
}

/// In WAL mode NORMAL leaves out the sync of the log at each commit, and a commit that was counted goes with the power.
#[test]
fn synchronous_normal_is_found() {
    let failure = find(Plan { faults: Faults { normal: true, ..Faults::default() }, ..Plan::honest() });
    // Lost at once, or a log with holes, which no power cut makes of one that is synced.
    let words = ["stored and lost", "record", "set aside"];
    assert!(words.iter().any(|word| failure.what.contains(word)), "{failure:?}");
}

#[test]
fn counting_as_stored_before_the_commit_has_returned_is_found() {
    let failure = find(Plan { planted: Planted::CountedEarly, ..Plan::honest() });
    assert!(failure.what.contains("stored and lost"), "{failure:?}");
}

#[test]
fn confirming_what_was_sent_and_not_acknowledged_is_found() {
    let failure = find(Plan { planted: Planted::ConfirmedOnSend, ..Plan::honest() });
    assert!(failure.what.contains("stored and lost") || failure.what.contains("unconfirmed"), "{failure:?}");
}

#[test]
fn a_value_that_is_not_the_devices_is_found() {
    let failure = find(Plan { planted: Planted::WrongValue, ..Plan::honest() });
    assert!(failure.what.contains("another content"), "{failure:?}");
}

#[test]
fn an_update_in_two_transactions_is_found() {
    let failure = find(Plan { planted: Planted::TwoTransactions, ..Plan::update() });
    assert!(failure.what.contains("between two versions"), "{failure:?}");
}

#[test]
fn a_card_that_lies_ends_in_quarantine_and_salvage() {
    let plan = Plan { faults: Faults { dropped_syncs: 0.05, ..Faults::default() }, ..Plan::honest() };
    let (tally, failure) = Scenes::make().run(SOON, plan);
    assert!(failure.is_none(), "{failure:?}");
    assert!(tally.quarantines > 0 && tally.losses.corruptions > 0, "{tally:?}");
}
