//! How far a long command is: one line on standard error that writes over itself, and only if a person watches.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// The line changes at most this often.
const EVERY: Duration = Duration::from_millis(200);
/// Characters of the bar.
const WIDTH: usize = 30;

/// One line that grows. Nothing at all unless standard error is a terminal.
pub(super) struct Bar {
    watched: bool,
    drawn: Option<Instant>,
}

impl Bar {
    /// `also_output`: the command writes to standard output meanwhile; if that is the terminal too, the lines would mix.
    pub(super) fn new(also_output: bool) -> Self {
        let watched = io::stderr().is_terminal() && !(also_output && io::stdout().is_terminal());
        Self { watched, drawn: None }
    }

    /// `share`: 0 to 1. `what`: how much, in words.
    pub(super) fn show(&mut self, share: f64, what: &str) {
        let now = Instant::now();
        if !self.watched || self.drawn.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            return;
        }
        self.drawn = Some(now);
        // A terminal that has gone is no reason to stop.
        let _ = write!(io::stderr().lock(), "\r\x1b[K{}", line(share, what));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn line(share: f64, what: &str) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 100
    let percent = (share.clamp(0.0, 1.0) * 100.0) as usize;
    let full = percent * WIDTH / 100;
    format!("[{}{}] {percent:3} %  {what}", "#".repeat(full), ".".repeat(WIDTH - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_its_share() {
        assert_eq!(line(0.5, "10 readings"), "[###############...............]  50 %  10 readings");
        assert_eq!(line(7.0, ""), format!("[{}] 100 %  ", "#".repeat(WIDTH)));
        assert_eq!(line(f64::NAN, ""), format!("[{}]   0 %  ", ".".repeat(WIDTH)));
    }
}
