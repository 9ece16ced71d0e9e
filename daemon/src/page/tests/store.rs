//! What is said of readings that are lost or were saved, and whether the server knows.

use super::texts::{NOW_US, said, well};
use super::*;
use crate::status::Salvage;

#[test]
fn who_may_switch_the_gateway_off_while_a_store_waits_for_room_is_told_so() {
    let (judged, text) = said(|status| {
        let found = "the file of a newer program was set aside".to_owned();
        let (searching, waits_for_room) = (true, true);
        let salvage =
            Salvage { at_us: NOW_US, found, saved: 40, searching, waits_for_room, ..Salvage::default() };
        status.spool.salvage = Some(salvage);
    });
    assert_eq!(judged.severity, None, "nothing to do: {text}");
    assert!(text.contains("wait for room: 40 readings taken back so far"), "{text}");
    assert!(!text.contains("Leave the gateway switched on"), "{text}");
}

#[test]
fn what_was_saved_from_a_damaged_store_is_said_for_a_week_and_stays_in_the_report() {
    let damaged = |saved, lost, searching, days_ago: i64| {
        let (at_us, found) = (NOW_US - days_ago * 86_400_000_000, "file is not a database".to_owned());
        said(|status| {
            let salvage = Salvage { at_us, found, saved, lost, searching, ..Salvage::default() };
            status.spool.salvage = Some(salvage);
        })
    };
    let (judged, text) = damaged(1200, 0, true, 0);
    assert_eq!(judged.severity, Some(Severity::Warning), "{text}");
    assert!(text.contains("is being saved: 1\u{202f}200 readings so far"), "{text}");
    let (judged, text) = damaged(1200, 40, false, 1);
    assert_eq!(judged.severity, None, "nothing to do: {text}");
    assert!(text.contains("1\u{202f}200 readings saved from it, 40 are known to be lost"), "{text}");
    assert!(damaged(1, 0, false, 1).1.contains("1 reading saved from it, none is known to be lost"));
    assert!(!damaged(1200, 40, false, 8).1.contains("store was damaged"));
    let mut status = well();
    let found = "file is not a database".to_owned();
    let salvage = Salvage { at_us: NOW_US, found, saved: 12, ..Salvage::default() };
    status.spool.salvage = Some(salvage);
    let report = report::report(&status, &summary(&status, NOW_US), NOW_US);
    assert!(report.contains("Saved from a store that was set aside: 12 readings, 2026-"), "{report}");
}

#[test]
fn the_report_says_that_the_age_of_what_waits_is_not_known_while_it_is_not() {
    let mut status = well();
    (status.spool.waiting, status.spool.oldest_unknown) = (12, true);
    let report = report::report(&status, &summary(&status, NOW_US), NOW_US);
    assert!(
        report.contains("12 readings, Oldest since: not known now: the store cannot be read"),
        "{report}"
    );
}

#[test]
fn room_without_an_end_in_sight_is_not_said_to_be_about_that() {
    let said = |hours| words::server_away("mqtt.example.com", None, 5, Some(hours)).1;
    assert!(said(31.0).ends_with("5 waiting, room for about 31 h."), "{}", said(31.0));
    assert!(said(9e9).ends_with("5 waiting, room for more than a year."), "{}", said(9e9));
}

#[test]
fn the_report_says_what_waits_in_memory_while_the_disk_takes_nothing() {
    let report = |state: &str| {
        let mut status = well();
        state.clone_into(&mut status.spool.state);
        (status.spool.waiting, status.spool.open) = (0, 1_234);
        report::report(&status, &summary(&status, NOW_US), NOW_US)
    };
    let told = "In memory, not stored yet: 1\u{202f}234 readings";
    assert!(report("full").contains(told), "{}", report("full"));
    assert!(!report("ok").contains(told), "what the next commit stores is no news: {}", report("ok"));
}

#[test]
fn damaged_stores_that_went_unsearched_are_said_with_what_to_do() {
    let (judged, text) = said(|status| status.spool.unsearched = 2);
    assert_eq!(judged.severity, Some(Severity::Warning), "{text}");
    assert!(text.contains("2 files of it went unsearched"), "{text}");
    assert!(text.contains("Have the card or the disk replaced"), "{text}");
}

#[test]
fn the_server_is_said_to_have_taken_only_what_it_has_confirmed_and_not_that_anybody_heard_it() {
    let told = |server, records_waiting| {
        said(|status| {
            (status.uplink.configured, status.spool.records_waiting) = (server, records_waiting);
            status.spool.damaged = 7;
            let damage = crate::status::Salvage { at_us: NOW_US, saved: 12, lost: 7, ..Default::default() };
            status.spool.salvage = Some(damage);
        })
        .1
    };
    assert_eq!(told(true, 0).matches(". The server has taken the report. ").count(), 2, "{}", told(true, 0));
    assert_eq!(
        told(true, 1).matches(". The report waits to be sent to the server. ").count(),
        2,
        "{}",
        told(true, 1)
    );
    assert!(!told(true, 1).contains("has taken"), "{}", told(true, 1));
    let not_sure = |change: fn(&mut crate::status::Status)| {
        said(|status| {
            status.spool.damaged = 7;
            change(status);
        })
        .1
    };
    let refused = not_sure(|status| status.spool.records_refused = 2);
    assert!(
        refused.contains(". The server has refused 2 reports for good; this may be among them. "),
        "{refused}"
    );
    let unheard = not_sure(|status| status.uplink.records_unheard = 1);
    assert!(unheard.contains(". The server took 1 report to which nobody had subscribed; "), "{unheard}");
    assert!(!refused.contains("has taken") && !unheard.contains("has taken"));
    // After a restart it is forgotten that nobody heard it: what is said then is true all the same.
    assert!(!told(true, 0).to_lowercase().contains("reported"), "{}", told(true, 0));
    assert!(told(false, 1).contains("No server is configured that could be told"), "{}", told(false, 1));
}
