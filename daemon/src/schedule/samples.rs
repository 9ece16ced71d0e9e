//! The bounded queue from the buses to intake. Full: the oldest poll goes, and is counted.
//!
//! It is full only when the main thread has stood still for a long time: intake takes what is here faster than any
//! line can bring it. What is dropped here had no number yet, so it shows as missed polls, not as a gap.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fieldspool_drivers::Sample;
use tokio::sync::Notify;

/// A minute of a busy gateway: 16 buses with a poll every 60 ms.
pub const CAPACITY: usize = 16_384;

/// What a bus tells intake.
#[derive(Debug)]
pub enum News {
    /// A group was polled.
    Polled(Polled),
    /// A device changed between answering and silent.
    Edge {
        /// Index of the bus.
        bus: usize,
        /// Index of the device.
        device: usize,
        /// Now.
        answering: bool,
    },
    /// Polls were due and not made.
    Missed {
        /// Index of the bus.
        bus: usize,
        /// Index of the device.
        device: usize,
        /// How many.
        polls: u64,
    },
}

/// What one poll of a group brought, on its way to become a batch.
#[derive(Debug)]
pub struct Polled {
    /// Index of the bus.
    pub bus: usize,
    /// Index of the device.
    pub device: usize,
    /// Index of the group.
    pub group: usize,
    /// When it was read.
    pub at: Instant,
    /// One sample a point.
    pub samples: Vec<(u16, Sample)>,
}

/// The queue.
#[derive(Debug)]
pub struct Samples {
    queue: Mutex<VecDeque<News>>,
    capacity: usize,
    news: Notify,
}

impl Default for Samples {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl Samples {
    /// A queue of at most `capacity` news.
    pub fn new(capacity: usize) -> Self {
        Self { queue: Mutex::new(VecDeque::new()), capacity: capacity.max(1), news: Notify::new() }
    }

    /// Adds at the end; never waits. When full, the oldest poll becomes one missed poll.
    pub fn push(&self, news: News) {
        {
            let mut queue = self.lock();
            if queue.len() >= self.capacity {
                make_room(&mut queue);
            }
            queue.push_back(news);
        }
        self.news.notify_one();
    }

    /// Takes everything that is there, waiting for something first. For one taker.
    pub async fn take(&self, into: &mut Vec<News>) {
        loop {
            let waiting = self.news.notified();
            into.extend(self.lock().drain(..));
            if !into.is_empty() {
                return;
            }
            waiting.await;
        }
    }

    /// Takes what is there now.
    pub fn take_now(&self, into: &mut Vec<News>) {
        into.extend(self.lock().drain(..));
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<News>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns the oldest poll into a count. Counts of one device add up, so the queue outgrows its capacity by at most one
/// entry a device; where nothing but counts and edges is left, the oldest of those goes.
fn make_room(queue: &mut VecDeque<News>) {
    let Some(oldest) = queue.iter().position(|n| matches!(n, News::Polled(_))) else {
        queue.pop_front();
        return;
    };
    let Some(News::Polled(lost)) = queue.remove(oldest) else { return };
    tracing::warn!(
        "samples came faster than they could be taken; the oldest poll is dropped and counted as missed"
    );
    for news in queue.iter_mut() {
        if let News::Missed { bus, device, polls } = news
            && (*bus, *device) == (lost.bus, lost.device)
        {
            *polls += 1;
            return;
        }
    }
    queue.push_front(News::Missed { bus: lost.bus, device: lost.device, polls: 1 });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polled(device: usize) -> News {
        News::Polled(Polled { bus: 0, device, group: 0, at: Instant::now(), samples: Vec::new() })
    }

    #[test]
    fn when_full_the_oldest_poll_is_dropped_and_counted() {
        let samples = Samples::new(4);
        for device in 0..10 {
            samples.push(polled(device % 2));
        }
        let mut taken = Vec::new();
        samples.take_now(&mut taken);
        assert!(taken.len() <= 6, "bounded: {}", taken.len());
        let kept = taken.iter().filter(|n| matches!(n, News::Polled(_))).count() as u64;
        let missed: u64 =
            taken.iter().map(|n| if let News::Missed { polls, .. } = n { *polls } else { 0 }).sum();
        assert_eq!(kept + missed, 10, "nothing vanishes uncounted");
        assert!(matches!(taken.last(), Some(News::Polled(p)) if p.device == 1), "the newest is kept");
    }

    #[tokio::test]
    async fn what_is_pushed_from_another_thread_wakes_the_taker() {
        let samples = std::sync::Arc::new(Samples::default());
        let there = samples.clone();
        let pusher = std::thread::spawn(move || there.push(polled(3)));
        let mut taken = Vec::new();
        samples.take(&mut taken).await;
        assert!(matches!(taken.as_slice(), [News::Polled(p)] if p.device == 3));
        pusher.join().expect("pushed");
    }
}
