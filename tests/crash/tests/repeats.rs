//! A schedule is one number: run twice, every operation on the disk is the same, on each kind of disk. Else what a failing
//! schedule has found could not be looked at again.

use fieldspool_crash::disk::Faults;
use fieldspool_crash::life::{Plan, Tally};
use fieldspool_crash::run::Scenes;

/// Both runs of some schedules, compared; gives the sum of them.
fn twice(plan: Plan, seeds: impl IntoIterator<Item = u64>) -> Tally {
    let scenes = Scenes::make();
    let mut sum = Tally::default();
    for seed in seeds {
        let (first, done) = scenes.schedule(seed, plan);
        assert_eq!(done, Ok(()), "schedule {seed}");
        let (second, _) = scenes.schedule(seed, plan);
        assert_eq!(first, second, "schedule {seed} of {plan:?}, down to each operation on the disk");
        sum.add(&first);
    }
    sum
}

fn faulty(faults: Faults) -> Plan {
    Plan { faults, ..Plan::honest() }
}

#[test]
fn on_a_disk_that_keeps_its_word() {
    assert!(twice(Plan::honest(), [4, 7, 10, 16]).cuts > 0);
}

#[test]
fn in_an_update() {
    assert!(twice(Plan::update(), 5..=7).updates.1 > 0);
}

#[test]
fn on_a_disk_whose_syncs_fail() {
    let sum = twice(faulty(Faults { failed_syncs: 0.05, ..Faults::default() }), 1..=6);
    assert!(sum.bad_syncs > 0, "{sum:?}");
}

/// Files are set aside here, and the folders are named by runs, whose names are drawn.
#[test]
fn on_a_card_that_lies() {
    let sum = twice(faulty(Faults { dropped_syncs: 0.05, ..Faults::default() }), 20_261_832..=20_261_840);
    assert!(sum.bad_syncs > 0 && sum.quarantines > 0 && sum.losses.corruptions > 0, "{sum:?}");
}
