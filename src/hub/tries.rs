//! How often a request is made, and how long is waited in between.

use std::time::Duration;

/// Requests without anything to show for them.
pub(super) const MOST_TRIES: u32 = 4;

/// Tries at one request, each after a longer wait than the one before.
pub(super) struct Tries {
    patience: Duration,
    failed: u32,
}

impl Tries {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, failed: 0 }
    }

    /// Counts a try that failed, and says how long to wait before the next: as long as the server `wants`, and no longer than our
    /// patience. `None` where there is no next.
    pub(super) fn failed(&mut self, wants: Option<Duration>) -> Option<Duration> {
        self.failed += 1;
        let wait = wants.unwrap_or(self.patience / 100 * 4u32.pow(self.failed.min(MOST_TRIES) - 1));
        (self.failed < MOST_TRIES && wait <= self.patience).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut tries = Tries::new(Duration::from_secs(20));
        let waits: Vec<_> = (0..5).map(|_| tries.failed(None).map(|wait| wait.as_millis())).collect();
        assert_eq!(waits, [Some(200), Some(800), Some(3200), None, None]);
    }

    #[test]
    fn a_server_that_wants_to_wait_for_years_is_given_up() {
        let mut tries = Tries::new(Duration::from_secs(20));
        assert_eq!(tries.failed(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(tries.failed(Some(Duration::from_secs(1_000_000_000))), None);
    }
}
