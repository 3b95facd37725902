//! One finding by its id: from the journal, and from the index what came after
//! its newest report.

use std::time::Duration;

use procwarden_common::finding::{FindingState, StoredFinding};
use procwarden_common::id::FindingId;

use super::facts::Fact;
use super::history::Past;
use super::index::Index;

/// An index that is being opened is waited for where nothing else is left.
const DAMAGE_PATIENCE: Duration = Duration::from_secs(2);

/// A finding with all its evidence. The journal says most; the index, if it
/// can be asked within `patience`, when the finding ended, and what it holds in place of a
/// damaged record.
///
/// # Errors
/// Why it cannot be read, in words.
pub(super) fn finding(
    index: &Index,
    past: &Past,
    id: FindingId,
    fact: Fact,
    patience: Duration,
) -> Result<StoredFinding, String> {
    let reported = past.report(id, fact);
    if !fact.ended && reported.is_ok() {
        return reported;
    }
    let patience = match reported {
        Ok(_) => patience,
        Err(_) => patience.max(DAMAGE_PATIENCE),
    };
    let asked = index.ask(patience, |store| store.finding(fact.position));
    let indexed = asked.ok().flatten().filter(|stored| stored.id == id);
    let mut stored = match (indexed, reported) {
        (Some(indexed), Ok(reported)) => StoredFinding {
            finding: reported.finding,
            ..indexed
        },
        (None, Ok(reported)) => reported,
        (Some(indexed), Err(error)) => {
            tracing::warn!(
                finding = %id,
                %error,
                "The evidence of a finding cannot be read: showing what the index holds.",
            );
            indexed
        }
        (None, Err(error)) => return Err(error),
    };
    if fact.ended && stored.ended_at.is_none() {
        stored.state = FindingState::Ended;
        stored.ended_at = past.end_of(id).or(Some(stored.last_seen));
    }
    Ok(stored)
}
