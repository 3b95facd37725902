//! The load watch (PT_LOAD): every interval it reads the load average; at the
//! limit it makes a finding about this host, with what keeps it busy.
//!
//! Promises: one finding per episode, and its end is reported; one that a full
//! spool dropped is reported anew; an episode and the pause after it survive a
//! restart of the agent, not of the host; times
//! count on the clock since boot, so a change of the wall clock neither
//! repeats nor suppresses anything. Evidence is bounded (summary.rs). Has a
//! thread of its own, so that it sees the load while a scan takes long.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Ended, Finding, HostFacts, Subject};
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::policy::{LoadSettings, Policy};
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;
use tokio::sync::watch;

use crate::actions::Actions;
use crate::actions::config::ActionsConfig;
use crate::clock;
use crate::procfs::ProcRoot;
use crate::spool::SharedSpool;

mod episode;
mod state;
mod summary;

use episode::{Episodes, Step};

/// While nobody watches the load, the settings are looked at this often.
const IDLE_PAUSE: Duration = Duration::from_secs(30);

/// What the thread works with.
pub(crate) struct LoadWatch {
    pub(crate) root: ProcRoot,
    pub(crate) state_dir: PathBuf,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    pub(crate) spool: SharedSpool,
    pub(crate) actions: ActionsConfig,
}

/// The running thread; it ends with the value.
pub(crate) struct Watching {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop = None;
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("The load watch broke: see the log above.");
        }
    }
}

impl LoadWatch {
    /// Starts the thread.
    pub(crate) fn start(self) -> std::io::Result<Watching> {
        let (stop, stopped) = channel();
        // Its only script runs while the load is high: threads for it are
        // started here, not for every agent.
        let config = ActionsConfig {
            on_deleted: None,
            on_over_limit: None,
            ..self.actions.clone()
        };
        let actions = Actions::start(config, &self.spool)?;
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || self.run(&actions, &stopped))?;
        Ok(Watching {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn run(self, actions: &Actions, stopped: &Receiver<()>) {
        let boot_id = self.root.boot_id();
        let (mut episodes, stale) = state::load(&self.state_dir, boot_id);
        // What ran before a reboot has ended.
        self.end(stale.into_iter().collect());
        loop {
            let settings = self.policy.borrow().settings().load.clone();
            self.look(&settings, &mut episodes, actions);
            let pause = match settings.level {
                Some(_) => Duration::from_secs(settings.interval_secs),
                None => IDLE_PAUSE,
            };
            match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&self, settings: &LoadSettings, episodes: &mut Episodes, actions: &Actions) {
        let Some(load) = summary::load_averages(&self.root) else {
            return;
        };
        let now = clock::now();
        match episodes.step(settings, load, self.root.uptime_millis(), now) {
            Step::Nothing => self.report_dropped(settings, episodes, load, now),
            Step::Begin { since } => {
                let (finding, _) = self.report(settings, since, load, now);
                actions.run_script("on_load", &finding, &[]);
            }
            Step::End { since } => self.end(vec![self.subject(since)]),
        }
        if let Err(error) = state::save(&self.state_dir, self.root.boot_id(), episodes) {
            tracing::warn!(%error, "The load watch cannot remember: a restart may repeat a finding.");
        }
    }

    /// A full spool may have dropped the report of an episode that goes on.
    fn report_dropped(
        &self,
        settings: &LoadSettings,
        episodes: &Episodes,
        load: [u32; 3],
        now: UnixMillis,
    ) {
        let dropped = self.spool.dropped_host_reports();
        let is_dropped = |since: &UnixMillis| dropped.subjects.contains(&self.subject(*since));
        let is_said = match episodes.since.filter(is_dropped) {
            None => true,
            Some(_) if !self.spool.has_room_for_reports() => false,
            Some(since) => self.report(settings, since, load, now).1,
        };
        // Only once it is on the disk: a report in memory can be lost.
        if is_said {
            self.spool.strike_out(&dropped);
        }
    }

    /// The finding, and whether it is on the disk.
    fn report(
        &self,
        settings: &LoadSettings,
        since: UnixMillis,
        load: [u32; 3],
        now: UnixMillis,
    ) -> (Finding, bool) {
        let mut facts = summary::take(&self.root);
        facts.load_hundredths = load;
        let finding = finding(self.subject(since), settings, facts, now);
        tracing::info!(
            load = finding_words(&finding),
            "The load of this host is high."
        );
        let changes = [Change::Reported(Box::new(finding.clone()))];
        let is_durable = self.spool.append(&changes);
        (finding, is_durable)
    }

    fn subject(&self, since: UnixMillis) -> Subject {
        Subject::Host {
            boot_id: self.root.boot_id(),
            since,
        }
    }

    fn end(&self, subjects: Vec<Subject>) {
        let ended_at = clock::now();
        let changes: Vec<Change> = subjects
            .into_iter()
            .map(|subject| Change::Ended(Ended { subject, ended_at }))
            .collect();
        if !changes.is_empty() {
            self.spool.append(&changes);
        }
    }
}

fn finding(
    subject: Subject,
    settings: &LoadSettings,
    facts: HostFacts,
    now: UnixMillis,
) -> Finding {
    let words = |load: u32| format!("{}.{:02}", load / 100, load % 100);
    let evidence = format!(
        "the load average of {} minutes is {}, the limit is {}; {} processors",
        settings.average_minutes,
        words(episode::chosen(settings, facts.load_hundredths)),
        settings.level.unwrap_or(0),
        facts.processors
    );
    Finding {
        subject,
        indicators: vec![Indicator {
            id: IndicatorId::HIGH_LOAD,
            severity: Severity::Medium,
            evidence,
        }],
        observed_at: now,
        uid: 0,
        user: Vec::new(),
        process: None,
        host: Some(facts),
        actions: Vec::new(),
        quiet: false,
    }
}

fn finding_words(finding: &Finding) -> &str {
    finding
        .indicators
        .first()
        .map_or("", |indicator| &indicator.evidence)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use procwarden_proto::v1;

    use super::*;
    use crate::health::Board;
    use crate::reported::tests::{process, suspect};
    use crate::spool::Spool;

    const SPOOL_BYTES: u64 = 64 * 1024;

    fn watch(dir: &Path) -> LoadWatch {
        let opened = Spool::open(&dir.join("spool"), SPOOL_BYTES, || 7).unwrap();
        let (_, policy) = watch::channel(Arc::new(Policy::default()));
        LoadWatch {
            root: ProcRoot::open(Path::new("/proc")).unwrap(),
            state_dir: dir.to_owned(),
            policy,
            spool: SharedSpool::new(opened.spool, Arc::new(Board::default())),
            actions: ActionsConfig::default(),
        }
    }

    /// A collector that takes everything; how many findings were of the host.
    async fn drain(spool: &SharedSpool) -> usize {
        let mut of_host = 0;
        loop {
            let batch = spool.read_batch(0).await;
            let Some(last) = batch.last() else {
                return of_host;
            };
            let is_of_host = |event: &&v1::Event| matches!(&event.event, Some(v1::event::Event::Finding(finding)) if finding.host.is_some());
            of_host += batch.iter().filter(is_of_host).count();
            spool.ack(last.sequence).await;
        }
    }

    #[tokio::test]
    async fn an_episode_that_a_full_spool_drops_is_reported_anew_when_there_is_room_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let watch = watch(dir.path());
        let actions = Actions::start(ActionsConfig::default(), &watch.spool).unwrap();
        let settings = LoadSettings {
            level: Some(0),
            ..LoadSettings::default()
        };
        let mut episodes = Episodes::default();
        let mut look = || watch.look(&settings, &mut episodes, &actions);
        look();
        let mut pid = 0;
        while watch.spool.dropped_host_reports().subjects.is_empty() {
            pid += 1;
            let high = suspect(process(1, pid), &[(IndicatorId::EXE_MEMFD, Severity::High)]);
            watch.spool.append(&[Change::Reported(Box::new(high.bare))]);
        }
        look();
        assert_eq!(drain(&watch.spool).await, 0);
        look();
        look();
        assert_eq!(drain(&watch.spool).await, 1);
    }
}
