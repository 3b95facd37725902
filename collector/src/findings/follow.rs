//! Following along: what was recorded since a position, then what comes.
//!
//! A slow follower lags on the disk; it never holds up the committer.

use std::io;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::history::Past;
use super::recent::{Record, Recorded};
use super::replay::Replay;
use crate::journal::{JournalReader, Position};

/// Batches of records that wait in memory for a follower.
pub(super) const CHANNEL_BATCHES: usize = 2;
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Where to begin: a position behind the end of the journal becomes its end.
/// To be asked by the caller, before anything runs side by side: what is
/// recorded from then on is never passed over.
pub(super) fn beginning(journal: &JournalReader, from: Position) -> Position {
    let end = journal.end();
    if from > end {
        tracing::warn!(
            from = from.0,
            end = end.0,
            "Asked for findings behind the end of the journal: following from the end.",
        );
    }
    from.min(end)
}

/// Sends records until nobody listens, or until the findings are closed and
/// everything was sent.
pub(super) async fn run(
    past: Past,
    mut at: Position,
    mut ends: watch::Receiver<Position>,
    listener: mpsc::Sender<Vec<Recorded>>,
) {
    let mut open = true;
    loop {
        match read_some(&past, at).await {
            Ok((records, next)) => {
                at = next;
                if !records.is_empty() && listener.send(records).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(error = %error, "The findings journal could not be read: trying again.");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                    () = listener.closed() => return,
                }
            }
        }
        if at < past.journal.end() {
            continue;
        }
        if !open {
            return;
        }
        tokio::select! {
            changed = ends.changed() => open = changed.is_ok(),
            () = listener.closed() => return,
        }
    }
}

async fn read_some(past: &Past, from: Position) -> io::Result<(Vec<Recorded>, Position)> {
    let mut replay = Replay::new(&past.journal, &past.recent, from);
    let end = past.journal.end();
    let work = move || {
        let batch = replay.next_batch(end)?;
        let readable = batch.records.into_iter().filter_map(read);
        Ok((readable.collect(), batch.upto))
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

fn read(record: Record) -> Option<Recorded> {
    let position = record.position.0;
    let error = match Recorded::read(record) {
        Ok(recorded) => return Some(recorded),
        Err(error) => error,
    };
    tracing::error!(position, %error, "A record of the findings journal makes no sense: skipped.");
    None
}
