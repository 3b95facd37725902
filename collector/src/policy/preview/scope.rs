//! Whether settings still produce what a stored finding shows. Pure.
//!
//! Promises: an indicator is ruled out only where the finding has the facts to
//! say so; whatever cannot be told counts as produced, so that a preview never
//! promises more quiet than there will be.
//!
//! Not told: accounts that `users = "cpanel"` leaves out and process groups of
//! web servers, which their host alone knows; and limits on accounts, sessions
//! and load, of which no number is stored.

use procwarden_common::finding::{ProcessFacts, StoredFinding};
use procwarden_common::indicator::IndicatorId;
use procwarden_common::limits::SOCKETS_MAX;
use procwarden_common::policy::Settings;
use procwarden_common::process::Socket;

const MIB: u64 = 1024 * 1024;

/// Judged whatever the age: disguises, and logins that hang, which have an age
/// of their own.
const AT_ANY_AGE: [IndicatorId; 3] = [
    IndicatorId::FAKE_KERNEL_THREAD,
    IndicatorId::EXE_MEMFD,
    IndicatorId::HUNG_SSHD,
];

/// Whether agents show a finding under the newest settings, and would not
/// under a candidate's.
pub(super) fn leaves_out(newest: &Settings, candidate: &Settings, stored: &StoredFinding) -> bool {
    let process = stored.finding.process.as_ref();
    let is_ruled_out = |settings: &Settings, id: &IndicatorId| {
        process.is_some_and(|process| is_ruled_out(settings, stored, process, id))
    };
    let ids = || stored.finding.indicators.iter().map(|i| &i.id);
    let shows = |id| newest.raises(id) && !is_ruled_out(newest, id);
    // The facts are those of the newest report. Where they speak against what
    // was reported under these very settings, an earlier report had others.
    let contradicts = |id| newest.raises(id) && is_ruled_out(newest, id);
    let would_show = |id| candidate.raises(id) && (!is_ruled_out(candidate, id) || contradicts(id));
    ids().any(shows) && !ids().any(would_show)
}

fn is_ruled_out(
    settings: &Settings,
    stored: &StoredFinding,
    process: &ProcessFacts,
    id: &IndicatorId,
) -> bool {
    let within = |value: u64, limit: Option<u64>| limit.is_some_and(|limit| value <= limit);
    // What still runs may grow beyond any limit.
    let has_ended = stored.ended_at.is_some();
    let age = last_age_secs(stored, process);
    if age.is_some_and(|age| age < settings.min_age_secs) && !AT_ANY_AGE.contains(id) {
        return true;
    }
    match id {
        id if *id == IndicatorId::PROCESS_VIRTUAL_MEMORY => {
            has_ended && within(process.vsz_bytes / MIB, settings.process_vsz_mb)
        }
        id if *id == IndicatorId::PROCESS_RESIDENT_MEMORY => {
            has_ended && within(process.rss_bytes / MIB, settings.process_rss_mb)
        }
        id if *id == IndicatorId::PROCESS_RUN_TIME => {
            age.is_some_and(|age| within(age, settings.process_age_secs))
        }
        id if *id == IndicatorId::NETWORK_CONNECTION => settings.skip_http && is_web_only(process),
        _ => false,
    }
}

/// The age that it reached at most, both times by its host's clock; nothing
/// while it runs, because it may grow older than any limit.
fn last_age_secs(stored: &StoredFinding, process: &ProcessFacts) -> Option<u64> {
    let lived_millis = stored.ended_at?.millis_since(process.started_at);
    // It was seen at that age, whatever the clock did since.
    Some((lived_millis / 1000).max(process.age_secs))
}

/// Whether all its peers came to the ports of a web server. Of a process with as
/// many sockets as are stored, others may have been left out.
fn is_web_only(process: &ProcessFacts) -> bool {
    let connected = process.sockets.iter().filter(|socket| socket.has_peer());
    let mut connected = connected.peekable();
    process.sockets.len() < SOCKETS_MAX
        && connected.peek().is_some()
        && connected.all(Socket::is_on_web_port)
}
