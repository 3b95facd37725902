//! Sends an agent what it shall run and do: its policy when that differs from
//! what it runs, and the operator's wish for a scan.

use std::time::Duration;

use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;

use super::Link;
use super::end::End;
use super::outgoing::Outgoing;
use crate::sessions::Seat;

/// Between two looks at the ledger. The first change is acted on at once; a
/// storm of changes (a thousand hosts enrolling) costs each session four looks
/// a second, not a thousand.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// Directs until the session has to end. `runs` is the hash of what the agent
/// runs, by its own word.
pub(super) async fn direct(link: &Link, seat: &Seat, outgoing: &Outgoing, runs: Vec<u8>) -> End {
    match direct_until_failure(link, seat, outgoing, runs).await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

async fn direct_until_failure(
    link: &Link,
    seat: &Seat,
    outgoing: &Outgoing,
    mut runs: Vec<u8>,
) -> Result<std::convert::Infallible, End> {
    let mut changes = link.ctx.ledger.changes();
    loop {
        let version = *changes.borrow_and_update();
        let wanted = link.wanted.of(&link.ctx.ledger, version, link.host_id)?;
        if let Some(wanted) = wanted.filter(|wanted| wanted.hash[..] != runs[..]) {
            tracing::debug!(host = %link.host_id, name = link.host_name, "A policy is sent.");
            outgoing.send_framed(wanted.message.clone()).await?;
            runs = wanted.hash.to_vec();
        }
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    // The ledger lives as long as the collector serves.
                    changed.map_err(|_| End::Stopping)?;
                    break;
                }
                () = seat.scan_wanted() => {
                    outgoing.send(Message::ScanNow(v1::ScanNow {})).await?;
                }
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
