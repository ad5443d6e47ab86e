//! Where the time of the calling thread goes: a listener that sums the crate's spans by part of the model, kind and pass.
//!
//! A subscriber of its own: these spans are entered once, by one thread, in the order of a stack, so that a map and a stack do
//! what a layer on `tracing_subscriber`'s registry would, without the dependency.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Debug, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Where steps that no span accounts for happen.
const NOWHERE: &str = "between the parts";

/// What is summed: a fused step's kind and pass, or what a part does beside those.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Op { kind: String, pass: String },
    Rest,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    calls: usize,
    time: Duration,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.time += other.time;
        self.bytes += other.bytes;
    }
}

/// A span's fields, whichever it has.
#[derive(Default)]
struct Fields {
    name: &'static str,
    kind: Option<String>,
    pass: String,
    index: Option<u64>,
    bytes: u64,
}

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "index" => self.index = Some(value),
            "bytes" => self.bytes = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "kind" => self.kind = Some(value.to_owned()),
            "pass" => value.clone_into(&mut self.pass),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Fields {
    fn part(&self) -> String {
        self.index.map_or_else(|| self.name.to_owned(), |index| format!("{} {index}", self.name))
    }
}

/// A span that has been entered.
struct Frame {
    start: Instant,
    /// The time of the spans inside.
    inner: Duration,
    part: String,
}

#[derive(Default)]
struct State {
    made: u64,
    spans: HashMap<u64, Fields>,
    stack: Vec<Frame>,
    sums: BTreeMap<(String, Kind), Sum>,
}

impl State {
    fn enter(&mut self, id: u64) {
        let Some(span) = self.spans.get(&id) else { return };
        let part = match (&span.kind, self.stack.last()) {
            (None, _) => span.part(),
            (Some(_), Some(outside)) => outside.part.clone(),
            (Some(_), None) => NOWHERE.to_owned(),
        };
        self.stack.push(Frame { start: Instant::now(), inner: Duration::ZERO, part });
    }

    fn exit(&mut self, id: u64) {
        let (Some(span), Some(frame)) = (self.spans.remove(&id), self.stack.pop()) else { return };
        let whole = frame.start.elapsed();
        if let Some(outside) = self.stack.last_mut() {
            outside.inner += whole;
        }
        let kind = span.kind.map_or(Kind::Rest, |kind| Kind::Op { kind, pass: span.pass });
        let sum = Sum { calls: 1, time: whole.saturating_sub(frame.inner), bytes: span.bytes };
        self.sums.entry((frame.part, kind)).or_default().add(&sum);
    }
}

/// Listens to the crate's spans; clones share what they hear.
#[derive(Clone, Default)]
pub struct Listener(Arc<Mutex<State>>);

impl Listener {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was heard in `runs` runs that took `wall` together.
    pub fn report(&self, wall: Duration, runs: usize) -> Report {
        let mut sums = self.state().sums.clone();
        let heard: Duration = sums.values().map(|sum| sum.time).sum();
        let between = Sum { time: wall.saturating_sub(heard), ..Sum::default() };
        sums.entry((NOWHERE.to_owned(), Kind::Rest)).or_default().add(&between);
        Report { sums, wall, runs }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("tadformer::")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields { name: span.metadata().name(), ..Fields::default() };
        span.record(&mut fields);
        let mut state = self.state();
        state.made += 1;
        let id = state.made;
        state.spans.insert(id, fields);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some(fields) = self.state().spans.get_mut(&span.into_u64()) {
            values.record(fields);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, span: &Id) {
        self.state().enter(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        self.state().exit(span.into_u64());
    }
}

/// Prints two tables, each sorted by time: by kind of step, and by part of the model.
pub struct Report {
    sums: BTreeMap<(String, Kind), Sum>,
    wall: Duration,
    runs: usize,
}

impl Report {
    /// The sums by whatever `key` makes of their part and kind, longest first.
    fn by<K: Ord>(&self, key: impl Fn(&str, &Kind) -> K) -> Vec<(K, Sum)> {
        let mut sums = BTreeMap::<K, Sum>::new();
        for ((part, kind), sum) in &self.sums {
            sums.entry(key(part, kind)).or_default().add(sum);
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.time));
        sums
    }

    fn ms_per_run(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e3 / self.runs as f64
    }

    fn share(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.wall.as_secs_f64() * 100.0
    }

    fn kinds(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ("kind", "pass", "calls", "ms", "share", "MB", "GB/s");
        let (kind, pass, calls, ms, share, mb, rate) = head;
        writeln!(f, "{kind:<34} {pass:<8} {calls:>7} {ms:>9} {share:>7} {mb:>9} {rate:>7}")?;
        for (kind, sum) in self.by(|_, kind| kind.clone()) {
            let (ms, share) = (self.ms_per_run(sum.time), self.share(sum.time));
            match kind {
                Kind::Rest => writeln!(
                    f,
                    "{:<34} {:<8} {:>7} {ms:>9.2} {share:>6.1}%",
                    "candle's own steps and the rest", "", ""
                )?,
                Kind::Op { kind, pass } => {
                    let calls = sum.calls as f64 / self.runs as f64;
                    let mb = sum.bytes as f64 / 1e6 / self.runs as f64;
                    let rate = sum.bytes as f64 / 1e9 / sum.time.as_secs_f64().max(1e-9);
                    writeln!(f, "{kind:<34} {pass:<8} {calls:>7.0} {ms:>9.2} {share:>6.1}% {mb:>9.1} {rate:>7.1}")?;
                }
            }
        }
        writeln!(f, "{:<34} {:<8} {:>7} {:>9.2} {:>6.1}%", "all", "", "", self.ms_per_run(self.wall), 100.0)
    }

    fn parts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<34} {:>9} {:>7} {:>16} {:>9}", "part", "ms", "share", "in fused steps", "rest")?;
        for (part, sum) in self.by(|part, _| part.to_owned()) {
            let rest = self.sums.get(&(part.clone(), Kind::Rest)).map_or(Duration::ZERO, |rest| rest.time);
            let (ms, share) = (self.ms_per_run(sum.time), self.share(sum.time));
            let (fused, rest) = (self.ms_per_run(sum.time.saturating_sub(rest)), self.ms_per_run(rest));
            writeln!(f, "{part:<34} {ms:>9.2} {share:>6.1}% {fused:>16.2} {rest:>9.2}")?;
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kinds(f)?;
        writeln!(f)?;
        self.parts(f)
    }
}
