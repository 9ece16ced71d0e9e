//! The stop in stages, each with a budget: what is measured reaches the disk, what is on disk is said to be complete, and
//! all within 5 s, because a UPS or systemd will not wait longer.
//!
//! Budgets are least shares: what the stages before did not use is the close's, which has to empty the log of a slow card.
//!
//! polls → intake → commit → uplink grace → close of the store. A stage that overruns is left behind and the next one begins: then
//! the stop was by force, the log says which stages, and the run end is not marked clean unless everything before it was.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The stages in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The poll under way on each bus ends.
    Polls,
    /// Everything sampled is numbered.
    Intake,
    /// ... and stored.
    Commit,
    /// What is in flight is acknowledged; `stopped` is published.
    Uplink,
    /// The run end is written, the file closed.
    Close,
}

/// For all stages together; leaves 200 ms for the end of the process itself.
const TOTAL: Duration = Duration::from_millis(4_800);

impl Stage {
    /// How long it may take at least.
    pub(super) fn budget(self) -> Duration {
        Duration::from_millis(match self {
            Self::Polls | Self::Uplink => 1_000,
            Self::Intake => 300,
            Self::Commit => 1_200,
            Self::Close => 1_300,
        })
    }

    fn words(self) -> &'static str {
        match self {
            Self::Polls => "polls",
            Self::Intake => "intake",
            Self::Commit => "commit",
            Self::Uplink => "uplink",
            Self::Close => "close",
        }
    }
}

/// How the stop goes.
#[derive(Debug)]
pub(super) struct Stopping {
    began: Instant,
    overrun: Vec<Stage>,
}

impl Stopping {
    pub(super) fn begin() -> Self {
        Self { began: Instant::now(), overrun: Vec::new() }
    }

    /// Runs one stage within its budget; it says itself whether all went well.
    pub(super) async fn stage(&mut self, stage: Stage, work: impl Future<Output = bool>) {
        let left = TOTAL.saturating_sub(self.began.elapsed());
        let within = if stage == Stage::Close { left } else { stage.budget().min(left) };
        if timeout(within, work).await != Ok(true) {
            self.overrun.push(stage);
        }
    }

    /// Everything so far ended in order.
    pub(super) fn in_order(&self) -> bool {
        self.overrun.is_empty()
    }

    /// Everything measured is stored: the run end may say so. The uplink has no part in that.
    pub(super) fn all_is_stored(&self) -> bool {
        self.overrun.iter().all(|stage| *stage == Stage::Uplink)
    }

    /// The last line of the log.
    pub(super) fn say(&self) {
        let elapsed = format!("{} ms", self.began.elapsed().as_millis());
        if self.in_order() {
            tracing::info!(elapsed, "stopped in order");
        } else {
            let stages: Vec<&str> = self.overrun.iter().map(|stage| stage.words()).collect();
            let error = format!("not finished: {}", stages.join(", "));
            tracing::warn!(elapsed, error, "stopped by force");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [Stage; 5] = [Stage::Polls, Stage::Intake, Stage::Commit, Stage::Uplink, Stage::Close];

    #[test]
    fn all_stages_together_stay_within_five_seconds() {
        let sum: Duration = ORDER.iter().map(|stage| stage.budget()).sum();
        assert!(sum <= TOTAL, "{sum:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_hangs_does_not_keep_the_next_from_running() {
        let began = Instant::now();
        let mut stopping = Stopping::begin();
        let mut ran = Vec::new();
        for stage in ORDER {
            stopping
                .stage(stage, async {
                    ran.push(stage);
                    if matches!(stage, Stage::Polls | Stage::Uplink) {
                        std::future::pending::<()>().await;
                    }
                    true
                })
                .await;
        }
        assert_eq!(ran, ORDER);
        assert_eq!(stopping.overrun, [Stage::Polls, Stage::Uplink]);
        assert!(!stopping.all_is_stored(), "a bus that still polls may bring more");
        assert!(began.elapsed() <= TOTAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_close_has_what_the_others_did_not_use() {
        let mut stopping = Stopping::begin();
        stopping.stage(Stage::Polls, async { true }).await;
        let slow = async {
            tokio::time::sleep(Duration::from_millis(4_500)).await;
            true
        };
        stopping.stage(Stage::Close, slow).await;
        assert!(stopping.in_order());
    }

    #[tokio::test(start_paused = true)]
    async fn an_uplink_that_hangs_does_not_make_the_run_unclean() {
        let mut stopping = Stopping::begin();
        stopping.stage(Stage::Uplink, std::future::pending()).await;
        assert!(stopping.all_is_stored() && !stopping.in_order());
    }
}
