//! A limit for log lines that strangers can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Admits so many lines per second and counts the rest.
pub(crate) struct LogLimit {
    lines_per_second: u32,
    window: Mutex<Option<Window>>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    admitted: u32,
    suppressed: u64,
}

impl LogLimit {
    pub(crate) const fn per_second(lines: u32) -> Self {
        Self {
            lines_per_second: lines,
            window: Mutex::new(None),
        }
    }

    /// The number of lines suppressed since the last admitted one, when this
    /// line may be written; nothing when it is to be suppressed.
    #[must_use]
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut guard = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = Window {
            began: now,
            admitted: 0,
            suppressed: 0,
        };
        let window = guard.get_or_insert(fresh);
        if now.duration_since(window.began) >= Duration::from_secs(1) {
            *window = Window {
                suppressed: window.suppressed,
                ..fresh
            };
        }
        if window.admitted >= self.lines_per_second {
            window.suppressed = window.suppressed.saturating_add(1);
            return None;
        }
        window.admitted += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_limit_are_counted_and_told_with_the_next_one() {
        let limit = LogLimit::per_second(2);
        let start = Instant::now();
        let admitted: Vec<_> = (0..5).map(|_| limit.admit_at(start)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        let later = start + Duration::from_secs(1);
        assert_eq!(limit.admit_at(later), Some(3));
        assert_eq!(limit.admit_at(later), Some(0));
        assert_eq!(limit.admit_at(later), None);
    }
}
