//! The room for batches between the sockets and the disk, shared fairly by all
//! sessions. Who finds none waits, and meanwhile its stream is not read: the
//! excess stays in the agent's own spool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use procwarden_common::id::HostId;
use tokio::sync::oneshot;

use super::fair::{Fair, Room};

/// Enough for one group that becomes durable and one that gathers behind it.
const ROOM: Room = Room {
    all: 32 * 1024 * 1024,
    each: 2 * 1024 * 1024,
    quantum: 128 * 1024,
};

/// See the module; cheap to clone.
#[derive(Clone)]
pub(crate) struct Ingest {
    fair: Arc<Mutex<Fair<HostId, oneshot::Sender<Place>>>>,
}

/// Room for one batch; dropping it gives the room to the next.
pub(super) struct Place {
    ingest: Ingest,
    host: HostId,
    /// Nothing once it was given back.
    bytes: Option<u64>,
}

impl Ingest {
    pub(crate) fn new() -> Self {
        Self {
            fair: Arc::new(Mutex::new(Fair::new(ROOM))),
        }
    }

    /// Waits for room, and says how long that took when it had to.
    pub(super) async fn enter(&self, host: HostId, bytes: usize) -> (Place, Option<Duration>) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let turn = {
            let mut fair = self.lock();
            if fair.try_take(host, bytes) {
                return (self.place(host, bytes), None);
            }
            let (tell, turn) = oneshot::channel();
            fair.wait(host, bytes, tell);
            turn
        };
        self.serve();
        let begin = Instant::now();
        // Whoever waits is served: a place that is dropped serves the next.
        let place = turn.await.unwrap_or_else(|_| self.place(host, 0));
        (place, Some(begin.elapsed()))
    }

    /// Tells everybody whose turn has come.
    fn serve(&self) {
        loop {
            let Some((host, bytes, tell)) = self.lock().next() else {
                return;
            };
            // The session is gone. Dropping its place would come back here, as
            // deep as there are such sessions.
            if let Err(mut place) = tell.send(self.place(host, bytes)) {
                place.bytes = None;
                self.lock().release(host, bytes);
            }
        }
    }

    fn place(&self, host: HostId, bytes: u64) -> Place {
        Place {
            ingest: self.clone(),
            host,
            bytes: Some(bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fair<HostId, oneshot::Sender<Place>>> {
        self.fair.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(bytes) = self.bytes.take() {
            self.ingest.lock().release(self.host, bytes);
            self.ingest.serve();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::host_id;

    const SHARE: usize = 2 * 1024 * 1024;

    #[tokio::test]
    async fn a_host_beyond_its_share_waits_and_others_do_not() {
        let ingest = Ingest::new();
        let (first, waited) = ingest.enter(host_id(1), SHARE).await;
        assert_eq!(waited, None);
        let flooding = ingest.clone();
        let second = tokio::spawn(async move { flooding.enter(host_id(1), SHARE).await.1 });
        tokio::task::yield_now().await;
        assert_eq!(ingest.enter(host_id(2), 1).await.1, None);
        assert!(!second.is_finished());
        drop(first);
        assert!(second.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_session_that_was_cut_while_it_waited_leaves_its_turn_to_others() {
        let ingest = Ingest::new();
        let (first, _) = ingest.enter(host_id(1), SHARE).await;
        for _ in 0..3 {
            let waiting = ingest.clone();
            let gone = tokio::spawn(async move { waiting.enter(host_id(1), SHARE).await.1 });
            tokio::task::yield_now().await;
            gone.abort();
            assert!(gone.await.is_err());
        }
        let waiting = ingest.clone();
        let last = tokio::spawn(async move { waiting.enter(host_id(1), SHARE).await.1 });
        tokio::task::yield_now().await;
        drop(first);
        assert!(last.await.unwrap().is_some());
        assert!(ingest.lock().try_take(host_id(1), SHARE as u64));
    }
}
