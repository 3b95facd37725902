//! Which batches are on their way: sent, not yet acknowledged. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Batches on their way at once: enough to keep a link busy, few enough that
/// little is sent twice when it breaks.
const BATCHES_MAX: usize = 4;

/// An ack that takes longer means that the collector hangs.
const ACK_TIMEOUT: Duration = Duration::from_secs(120);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Last sequence of each batch, and when it was sent.
    on_their_way: VecDeque<(u64, Instant)>,
    sent: u64,
}

impl Window {
    /// Whether another batch may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.on_their_way.len() < BATCHES_MAX
    }

    /// Whether everything that was sent is acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.on_their_way.is_empty()
    }

    /// The newest sequence that was sent on this stream.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// A batch that ends with `last` was sent.
    pub(super) fn send(&mut self, last: u64, now: Instant) {
        self.sent = last;
        self.on_their_way.push_back((last, now));
    }

    /// Takes an ack; false when it acknowledges what was not sent.
    #[must_use]
    pub(super) fn ack(&mut self, sequence: u64) -> bool {
        while self
            .on_their_way
            .front()
            .is_some_and(|(last, _)| *last <= sequence)
        {
            self.on_their_way.pop_front();
        }
        sequence <= self.sent
    }

    /// When the oldest batch must be acknowledged.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.on_their_way
            .front()
            .map(|(_, sent_at)| *sent_at + ACK_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acks_make_room_and_cover_earlier_batches() {
        let (mut window, now) = (Window::default(), Instant::now());
        for last in [10, 20, 30, 40] {
            assert!(window.has_room());
            window.send(last, now);
        }
        assert!(!window.has_room());
        assert_eq!(window.deadline(), Some(now + ACK_TIMEOUT));
        assert!(window.ack(25));
        assert!(window.has_room() && !window.is_empty());
        assert!(window.ack(40));
        assert!(window.is_empty() && window.deadline().is_none());
    }

    #[test]
    fn an_ack_of_what_was_not_sent_is_noticed() {
        let mut window = Window::default();
        window.send(10, Instant::now());
        assert!(!window.ack(11));
    }
}
