//! Failed requests in the log, a few per second: clients that retry against a full disk must not fill it further.

use std::time::Duration;

use axum::http::Method;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::answer::Failure;

/// Lines written per window.
const LINES_MAX: u32 = 5;
/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);

/// Decides which failures are written.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Window {
    /// Whether a failure at `now` is written; then how many were left out since the last one that was.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WINDOW) {
            self.began = Some(now);
            self.written = 0;
        }
        if self.written == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl FailureLog {
    /// Writes a failure that is the server's own, unless there have been many just now.
    pub(super) fn write(&self, method: &Method, path: &str, failure: &Failure, now: Instant) {
        let Some(left_out) = self.window.lock().admit(now) else { return };
        let status = failure.status.as_u16();
        tracing::warn!(%method, path, status, "request failed: {}", failure.text);
        if left_out > 0 {
            tracing::warn!(left_out, "more requests failed since the last one written here");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_counted_instead_of_written() {
        let (mut window, start) = (Window::default(), Instant::now());
        let written = (0..100).filter(|_| window.admit(start).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(window.admit(start + WINDOW), Some(95));
        assert_eq!(window.admit(start + WINDOW), Some(0));
    }
}
