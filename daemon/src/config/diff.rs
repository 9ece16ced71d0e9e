//! What a reload has to touch: the difference between two configurations, as a list. Pure.
//!
//! A part that is not named in the list is not disturbed. What cannot change while the daemon runs is named too, as
//! refused, and the rest is applied all the same.

use super::Config;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A bus to be opened.
    BusAdded(String),
    /// A bus to be closed.
    BusRemoved(String),
    /// What is polled on a bus, or how: it is closed and opened anew.
    BusChanged(String),
    /// Labels, units, deadbands and the like: the bus goes on, intake and viewers are told.
    BusDescribed(String),
    /// Anything under `[uplink]`, or the uplink came or went.
    Uplink,
    /// Anything under `[spool]` but its place.
    Spool,
    /// Anything under `[page]`, or the page came or went.
    Page,
    /// `trust_rtc`.
    TrustRtc,
    /// Not applied before the next start.
    Refused {
        /// The key.
        key: &'static str,
        /// What stays.
        was: String,
        /// What was asked for.
        wanted: String,
    },
}

/// Everything in which `new` differs from `old`; empty if nothing does.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    refused(old, new, &mut changes);
    for bus in &old.buses {
        let name = bus.spec.name.to_string();
        let now = new.buses.iter().find(|other| other.spec.name == bus.spec.name);
        changes.extend(match now {
            None => Some(Change::BusRemoved(name)),
            Some(now) if now.spec != bus.spec => Some(Change::BusChanged(name)),
            Some(now) if now.devices != bus.devices => Some(Change::BusDescribed(name)),
            Some(_) => None,
        });
    }
    for bus in &new.buses {
        if !old.buses.iter().any(|other| other.spec.name == bus.spec.name) {
            changes.push(Change::BusAdded(bus.spec.name.to_string()));
        }
    }
    let mut spool = new.spool.clone();
    spool.directory.clone_from(&old.spool.directory);
    let parts = [
        (old.uplink != new.uplink, Change::Uplink),
        (old.spool != spool, Change::Spool),
        (old.page != new.page, Change::Page),
        (old.trust_rtc != new.trust_rtc, Change::TrustRtc),
    ];
    changes.extend(parts.into_iter().filter_map(|(differs, change)| differs.then_some(change)));
    changes
}

fn refused(old: &Config, new: &Config, changes: &mut Vec<Change>) {
    let directory = |path: &std::path::Path| path.display().to_string();
    let fixed = [
        ("gateway", old.gateway.to_string(), new.gateway.to_string()),
        ("state_directory", directory(&old.spool.directory), directory(&new.spool.directory)),
        ("runtime_directory", directory(&old.runtime_directory), directory(&new.runtime_directory)),
    ];
    for (key, was, wanted) in fixed {
        if was != wanted {
            changes.push(Change::Refused { key, was, wanted });
        }
    }
}
