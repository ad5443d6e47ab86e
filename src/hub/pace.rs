//! The least speed of a transfer.

use std::time::{Duration, Instant};

/// Measures how much comes in each span of time.
pub(super) struct Pace {
    /// Bytes a second.
    least: u64,
    span: Duration,
    since: Instant,
    came: u64,
}

impl Pace {
    /// From now on at least `least` bytes a second, on the mean of each span.
    pub(super) fn new(least: u64, span: Duration, now: Instant) -> Self {
        Self { least, span, since: now, came: 0 }
    }

    /// Counts bytes that came; `false` where a span is over in which too few did.
    pub(super) fn keeps_up(&mut self, bytes: usize, now: Instant) -> bool {
        self.came += bytes as u64;
        let passed = now.duration_since(self.since);
        if passed < self.span {
            return true;
        }
        let keeps_up = self.came as f64 >= self.least as f64 * passed.as_secs_f64();
        (self.since, self.came) = (now, 0);
        keeps_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a transfer of these (seconds, bytes) goes on to its end at 1000 bytes a second, over spans of 20 seconds.
    fn goes_on(pieces: &[(f64, usize)]) -> bool {
        let start = Instant::now();
        let mut pace = Pace::new(1000, Duration::from_secs(20), start);
        pieces.iter().all(|(at, bytes)| pace.keeps_up(*bytes, start + Duration::from_secs_f64(*at)))
    }

    #[test]
    fn a_byte_every_nineteen_seconds_ends_a_transfer_and_a_slow_line_does_not() {
        let each = |seconds: f64, bytes: usize| (1..100).map(|i| (i as f64 * seconds, bytes)).collect::<Vec<_>>();
        assert!(!goes_on(&each(19.0, 1)));
        assert!(goes_on(&each(1.0, 1100)));
        assert!(!goes_on(&each(1.0, 900)));
    }

    #[test]
    fn a_fast_start_does_not_pay_for_a_slow_end_and_a_pause_within_a_span_is_forgiven() {
        assert!(!goes_on(&[(1.0, 1_000_000), (21.0, 10), (30.0, 1), (42.0, 1)]));
        assert!(goes_on(&[(1.0, 15_000), (19.0, 15_000), (21.0, 1), (40.0, 30_000)]));
    }
}
