//! Detectors: what one process, or one account, says about itself.
//!
//! Pure: snapshot and settings in, sightings out. A sighting becomes an
//! indicator of a finding once it is confirmed (confirm.rs) and no rule
//! covers the process. Never reads anything and never looks at rules.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use procwarden_common::indicator::{Confirmation, Indicator, IndicatorId};
use procwarden_common::policy::Settings;
use procwarden_common::process::{ExeState, Process, ProcessKey};
use procwarden_common::severity::Severity;

use crate::procfs::Hung;
use crate::snapshot::Snapshot;

pub(crate) mod account_processes;
mod deleted_exe;
mod evidence_text;
mod fake_kernel_thread;
pub(crate) mod fork_bomb;
pub(crate) mod hung_sshd;
mod limits;
mod listener;
mod memfd_exe;
mod network_connection;
pub(crate) mod scope;
mod unreadable_process;
mod volatile_exe;
mod web_server;

use scope::{Scope, Standing};

/// What a detector says about one subject in one scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) indicator: Indicator,
    pub(crate) confirmation: Confirmation,
}

impl Sighting {
    /// A sighting that is confirmed as the indicator's table says.
    fn new(id: IndicatorId, severity: Severity, evidence: String) -> Self {
        let confirmation = id
            .info()
            .map_or(Confirmation::TwoScans, |info| info.confirmation);
        let evidence = evidence_text::bounded(evidence);
        Self {
            indicator: Indicator {
                id,
                severity,
                evidence,
            },
            confirmation,
        }
    }

    /// The same, believed at once.
    fn believed_at_once(mut self) -> Self {
        self.confirmation = Confirmation::OneScan;
        self
    }
}

/// What becomes of processes below the minimum age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Young {
    /// They are left alone until they are old enough.
    Wait,
    /// Disguises are judged at once, for no program has a reason to wear one,
    /// and many do not live until the next scan. All else needs the age.
    AreJudged,
}

/// What detectors know besides the process.
pub(crate) struct DetectContext<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) scope: &'a Scope,
    pub(crate) young: Young,
    /// Process groups that belong to web servers.
    web_groups: &'a HashSet<i32>,
    /// Processes whose reading hangs.
    hung: Option<&'a HashMap<ProcessKey, Hung>>,
}

impl<'a> DetectContext<'a> {
    /// What one scan's detectors need. `web_groups` come from [`web_groups`].
    pub(crate) const fn new(
        settings: &'a Settings,
        scope: &'a Scope,
        web_groups: &'a HashSet<i32>,
        young: Young,
    ) -> Self {
        Self {
            settings,
            scope,
            young,
            web_groups,
            hung: None,
        }
    }

    /// The same, with the processes whose reading hangs.
    pub(crate) const fn with_hung(self, hung: &'a HashMap<ProcessKey, Hung>) -> Self {
        Self {
            hung: Some(hung),
            ..self
        }
    }
}

/// The process groups that belong to web servers, where the settings ask.
pub(crate) fn web_groups(settings: &Settings, snapshot: &Snapshot) -> HashSet<i32> {
    if settings.skip_http {
        web_server::groups(snapshot)
    } else {
        HashSet::new()
    }
}

/// Everything that can be said about one process.
pub(crate) fn detect(process: &Process, context: &DetectContext<'_>) -> Vec<Sighting> {
    let settings = context.settings;
    let is_old = !is_young(process, settings);
    if !is_running(process) || !(is_old || context.young == Young::AreJudged) {
        return Vec::new();
    }
    let standing = context.scope.standing(process);
    let mut sightings = Vec::new();
    sightings.extend(fake_kernel_thread::detect(process));
    sightings.extend(memfd_exe::detect(process));
    if is_old {
        sightings.extend(of_its_file(process, standing, settings));
        let hung = context.hung.and_then(|hung| hung.get(&process.key));
        sightings.extend(unreadable_process::detect(hung, standing));
    }
    if standing == Standing::InScope && is_old {
        sightings.extend(listener::detect(process));
        sightings.extend(network_connection::detect(
            process,
            settings,
            context.web_groups,
        ));
        sightings.extend(limits::detect(process, settings));
    }
    sightings.retain(|sighting| settings.detects(&sighting.indicator.id));
    sightings
}

/// What its executable says once it is old enough. Installers and builds run
/// programs from such places too, but for moments.
fn of_its_file(process: &Process, standing: Standing, settings: &Settings) -> Vec<Sighting> {
    if standing == Standing::OutOfScope {
        return Vec::new();
    }
    let deleted = deleted_exe::detect(process, standing, settings);
    deleted
        .into_iter()
        .chain(volatile_exe::detect(process, standing))
        .collect()
}

/// How long until a process is worth another look, because nothing but its
/// age speaks for it; nothing when it is old enough or unsuspicious. What
/// only sockets or limits tell is left to scans.
pub(crate) fn comes_of_age(process: &Process, context: &DetectContext<'_>) -> Option<Duration> {
    let settings = context.settings;
    if !is_running(process) || !is_young(process, settings) {
        return None;
    }
    let standing = context.scope.standing(process);
    let is_suspicious = match standing {
        // Root needs a socket besides, and those are not read of the young.
        Standing::Root => volatile_exe::runs_from_one(process),
        Standing::InScope | Standing::OutOfScope => false,
    } || of_its_file(process, standing, settings)
        .iter()
        .any(|sighting| settings.detects(&sighting.indicator.id));
    let missing = settings.min_age_secs.saturating_sub(process.age_secs);
    is_suspicious.then_some(Duration::from_secs(missing))
}

/// Whether any detector wants to know the sockets of a process: the walk over
/// its descriptors is the dearest part of a scan.
pub(crate) fn wants_sockets(process: &Process, settings: &Settings, scope: &Scope) -> bool {
    if !is_running(process) || is_young(process, settings) {
        return false;
    }
    match scope.standing(process) {
        Standing::InScope => {
            settings.detects(&IndicatorId::UNEXPECTED_LISTENER)
                || settings.detects(&IndicatorId::NETWORK_CONNECTION)
        }
        Standing::Root => {
            settings.detects(&IndicatorId::EXE_IN_VOLATILE_DIR)
                && volatile_exe::runs_from_one(process)
        }
        Standing::OutOfScope => false,
    }
}

/// What has ended is no process any more, and kernel threads run nothing of
/// anybody's.
fn is_running(process: &Process) -> bool {
    !process.kernel_thread && !crate::procfs::process::is_ending(process)
}

/// Whether it has to wait for the minimum age.
pub(crate) const fn is_young(process: &Process, settings: &Settings) -> bool {
    process.age_secs < settings.min_age_secs
}

/// The processes that have to wait for the minimum age.
pub(crate) fn young_pids(snapshot: &Snapshot, settings: &Settings) -> Vec<u32> {
    let is_waiting = |process: &Process| is_running(process) && is_young(process, settings);
    let processes = snapshot.processes().iter();
    let waiting = processes.filter(|process| is_waiting(process));
    waiting.map(|process| process.key.pid).collect()
}

/// Its executable, if that could be read.
fn exe_state(process: &Process) -> Option<(&procwarden_common::process::Exe, ExeState)> {
    process.exe.value().map(|exe| (exe, exe.state))
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
