//! What the system tests share: a broker, Modbus peers, the gateway under test, and a subscriber that judges.

pub mod broker;
pub mod browser;
pub mod disk;
pub mod faults;
pub mod gateway;
pub mod peers;
pub mod subscriber;

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon. Generous: the machine may be busy, and a test that
/// passes does not wait.
pub const SOON: Duration = Duration::from_secs(30);

/// Waits until `met` returns something; `what` names it when it does not come.
pub fn wait_for<T>(what: &str, limit: Duration, mut met: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = met() {
            return value;
        }
        assert!(Instant::now() < end, "waited {limit:?} for {what}");
        pause();
    }
}

/// The breath between two looks at a condition.
#[allow(clippy::disallowed_methods)] // polling a condition of another process; never a wait by itself
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
