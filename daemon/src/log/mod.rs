//! The log: journal fields when standard error is the journal, plain lines on standard error otherwise.
//!
//! Messages are static and in lower case; what varies stands in fields from a closed list: `bus device point unit_id
//! function address count seq backlog topic client_id packet_id attempt retry_in elapsed missed error`. In the journal each is a field
//! (`F_BUS`, `F_DEVICE`, ...), and the message repeats them as text, so that `journalctl -u fieldspool` names the device.
//!
//! Promises: control characters are escaped ([`words`]); the same cause is said five times, then once a minute with a
//! count, and at most 60 lines a minute in all ([`limiter`]). Lines below INFO (`--verbose`) are not limited.
//!
//! The journal's socket blocks when journald stalls. At 60 lines a minute its queue takes minutes to fill, and
//! systemd restarts a stalled journald after three; that is why no thread stands between.

pub mod limiter;
mod words;

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Value};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use limiter::{Limiter, Verdict};
use words::Words;
pub use words::escape;

/// Fields of one event that reach the journal; the closed list has 18 names.
const FIELDS_MAX: usize = 20;

/// The target of a line that answers what a person asked for just now, as a reload: only the limit of all lines holds it back, never
/// that its like was said before.
pub const ANSWER: &str = "fieldspool::answer";

/// Warns of each PUBACK with a refusal; the uplink says once that the broker refuses, and why.
const SAID_BY_US: &str = "rumqttc::v5::state";

/// How much is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors, warnings, changes of state.
    #[default]
    Edges,
    /// Each poll, each message.
    Debug,
    /// Bytes.
    Trace,
}

/// Held-back lines of causes that went quiet are reported through this handle.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    limiter: Arc<Mutex<Limiter>>,
}

impl Tail {
    /// To be called about once a minute: says how many lines were held back and not yet accounted for.
    pub fn settle(&self) {
        let count = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).settle(Instant::now());
        if count > 0 {
            tracing::info!(count, "similar log lines were held back");
        }
    }
}

/// Starts the log. Call once, first of all; a second call changes nothing.
pub fn init(verbosity: Verbosity) -> Tail {
    let tail = Tail::default();
    let output = journal().map_or(Output::Stderr, |journal| Output::Journal(Box::new(journal)));
    let level = match verbosity {
        Verbosity::Edges => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::DEBUG,
        Verbosity::Trace => LevelFilter::TRACE,
    };
    let limiter = Arc::clone(&tail.limiter);
    let log = Log { output, limiter, hasher: RandomState::new(), answers: AtomicU64::new(0) };
    // A second subscriber in one process happens in tests only; the first one stays.
    let _ = tracing_subscriber::registry().with(log.with_filter(OwnWords(level))).try_init();
    tail
}

/// Ours at the chosen level, other people's crates from WARN up: their DEBUG prints payloads and keys. Of [`SAID_BY_US`] only
/// errors.
struct OwnWords(LevelFilter);

impl<S> tracing_subscriber::layer::Filter<S> for OwnWords {
    fn enabled(&self, meta: &tracing::Metadata<'_>, _: &Context<'_, S>) -> bool {
        let most = match meta.target() {
            ours if ours.starts_with("fieldspool") => self.0,
            SAID_BY_US => LevelFilter::ERROR,
            _ => LevelFilter::WARN,
        };
        *meta.level() <= most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }
}

/// The journal, if standard error is connected to it (systemd.exec(5), JOURNAL_STREAM).
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    if stream != format!("{}:{}", stderr.dev(), stderr.ino()) {
        return None;
    }
    // systemd's levels: INFO is 6 in every other service's journal, the crate's own choice is 5.
    let priorities = tracing_journald::PriorityMappings {
        info: tracing_journald::Priority::Informational,
        debug: tracing_journald::Priority::Debug,
        ..tracing_journald::PriorityMappings::new()
    };
    let layer = tracing_journald::layer().ok()?.with_priority_mappings(priorities);
    Some(layer.with_syslog_identifier("fieldspool".into()))
}

/// Whether standard error is the journal: then a line printed there would have no priority.
pub fn to_journal() -> bool {
    journal().is_some()
}

enum Output {
    Journal(Box<tracing_journald::Layer>),
    Stderr,
}

struct Log {
    output: Output,
    limiter: Arc<Mutex<Limiter>>,
    hasher: RandomState,
    answers: AtomicU64,
}

impl Log {
    /// One cause: the place in the code, and the bus and device it speaks of. Each [`ANSWER`] is one of its own.
    fn cause(&self, event: &Event<'_>, words: &Words, around: &[(&'static str, String)]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        event.metadata().callsite().hash(&mut hasher);
        if event.metadata().target() == ANSWER {
            self.answers.fetch_add(1, Ordering::Relaxed).hash(&mut hasher);
        }
        for name in ["bus", "device"] {
            let own = words.get(name);
            let outer = around.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
            own.or(outer).hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Log {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id) {
            let mut words = Words::default();
            attrs.record(&mut words);
            span.extensions_mut().insert(words);
        }
        if let Output::Journal(journal) = &self.output {
            journal.on_new_span(attrs, id, cx);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id)
            && let Some(words) = span.extensions_mut().get_mut::<Words>()
        {
            values.record(words);
        }
        if let Output::Journal(journal) = &self.output {
            journal.on_record(id, values, cx);
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let mut around = Vec::new();
        for span in cx.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Words>() {
                around.extend(outer.fields.iter().cloned());
            }
        }
        let level = *event.metadata().level();
        let mut held = 0;
        if level <= Level::INFO {
            let cause = self.cause(event, &words, &around);
            let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            match limiter.admit(cause, level == Level::ERROR, Instant::now()) {
                Verdict::Say(count) => held = count,
                Verdict::Hold => return,
            }
        }
        let line = words.line(&around, held);
        match &self.output {
            Output::Journal(journal) => say_to_journal(journal, event, &words, &line, cx),
            Output::Stderr => say_to_stderr(level, &line),
        }
    }
}

/// Hands the event on with the escaped texts, and with the whole line as its message.
fn say_to_journal<S: Subscriber + for<'span> LookupSpan<'span>>(
    journal: &tracing_journald::Layer,
    event: &Event<'_>,
    words: &Words,
    line: &str,
    cx: Context<'_, S>,
) {
    let fields = event.metadata().fields();
    let Some(message) = fields.field("message") else { return };
    let named: Vec<(Field, &str)> =
        words.fields.iter().filter_map(|(name, text)| Some((fields.field(name)?, text.as_str()))).collect();
    let mut values: [(&Field, Option<&dyn Value>); FIELDS_MAX + 1] = [(&message, None); FIELDS_MAX + 1];
    values[0] = (&message, Some(&line));
    for (slot, (field, text)) in values[1..].iter_mut().zip(&named) {
        *slot = (field, Some(text));
    }
    journal.on_event(&Event::new(event.metadata(), &fields.value_set(&values)), cx);
}

fn say_to_stderr(level: Level, line: &str) {
    let mut text = String::with_capacity(line.len() + 40);
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    let _ = writeln!(text, " {level:>5} {line}");
    // One write a line: lines of several threads do not mix. A closed standard error is nobody's fault.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
