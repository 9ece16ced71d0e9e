//! A server that is connected and does not take what it is sent: in the sentence, the problems, the report and the metrics.

use super::scrape::parse_metrics;
use super::texts::{NOW_US, said, well};
use super::*;
use crate::status::{Refused, Refusing, Status};

#[test]
fn a_server_that_refuses_what_it_is_sent_is_not_said_to_receive() {
    let why = "the broker refuses a message to a/live/b (0x87): we may not publish to this topic: check its access list";
    let refuse = |what| {
        move |status: &mut Status| {
            status.uplink.connected = true;
            status.uplink.refused = Some(Refused { what, since_us: NOW_US - 240_000_000, why: why.into() });
            (status.spool.waiting, status.spool.hours_until_full) = (270, Some(31.2));
        }
    };
    let (summary, text) = said(refuse(Refusing::All));
    assert_eq!(summary.severity, Some(Severity::Fault));
    assert_eq!(summary.sentence, "1 thing needs attention. All 3 devices answer.");
    assert_eq!(
        text,
        "The server mqtt.example.com:8883 is connected, but takes no readings since 12:19. The broker refuses a message \
         to a/live/b (0x87): we may not publish to this topic: check its access list. Readings are kept here until it takes \
         them: 270 waiting, room for about 31 h."
    );
    for (what, words) in [
        (Refusing::Some, "refuses some of the readings since 12:19. The broker refuses a message"),
        (
            Refusing::About,
            "refuses what tells of this gateway and its devices since 12:19. The broker refuses a message",
        ),
    ] {
        let (summary, text) = said(refuse(what));
        assert!(text.contains(words) && !summary.sentence.contains("All is well"), "{text}");
        assert_eq!(summary.severity, Some(Severity::Warning));
    }
    let mut status = well();
    refuse(Refusing::All)(&mut status);
    let text = report::report(&status, &summary_of(&status), NOW_US);
    assert!(
        text.contains("mqtt.example.com:8883, connected, but takes no readings since 2026-11-20 12:19"),
        "{text}"
    );
    assert!(text.contains("\n  Why: the broker refuses") && !text.contains("Why not"), "{text}");
    let samples = parse_metrics(&metrics::metrics(&status, &summary_of(&status), 0));
    let refused = samples.iter().filter(|(name, ..)| name == "fieldspool_uplink_refused");
    let refused: Vec<bool> = refused.map(|(.., value)| *value > 0.5).collect();
    assert_eq!(refused, [true, false, false], "all, some, about");
    // While there is no connection that is what is wrong.
    status.uplink.connected = false;
    assert_eq!(summary_of(&status).problems.len(), 1);
}

fn summary_of(status: &Status) -> Summary {
    summary(status, NOW_US)
}
