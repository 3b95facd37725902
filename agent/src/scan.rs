//! One scan: read -> detect -> confirm -> judge. The page to read first.
//!
//! Promises: a process that cannot be read is counted, never skipped in
//! silence; what detectors and rules say depends on nothing but the snapshot,
//! the policy and the scan before. Never reports, stores or sends anything.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Finding, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::policy::{Policy, RuleText, Verdict, judge};
use procwarden_common::process::{Process, ProcessKey};

use crate::confirm::{Confirmations, Whom};
use crate::detect::account_processes::AccountSighting;
use crate::detect::{self, DetectContext, Young};
use crate::evidence::Gatherer;
use crate::procfs::ProcRoot;
use crate::procfs::process::ReadCounts;
use crate::snapshot::Snapshot;

mod breath;
mod cpanel;
mod facts;
mod known;
mod looked;
mod machine;

pub(crate) use crate::procfs::thread_cpu_micros;
pub(crate) use known::is_turn;
use machine::{Machine, Pass, Wanted};

/// Where cPanel keeps a file for each of its accounts.
const CPANEL_USERS_DIR: &str = "/var/cpanel/users";

/// Scans again and again, and remembers what one scan needs from the last.
pub(crate) struct Scanner {
    machine: Machine,
    confirmations: Confirmations,
    cpanel_users_dir: PathBuf,
    /// Process groups of web servers, as the last scan saw them.
    web_groups: HashSet<i32>,
    /// Whether anybody wants to know of logins that hang in sshd.
    looks_for_hung_sshd: bool,
}

/// A suspect of one scan: confirmed and judged.
///
/// A scan can have tens of thousands, most of which were reported before or are
/// ignored, so the facts of the snapshot are copied for those alone of which
/// something has to be said.
pub(crate) struct Suspect {
    /// Its finding, but without the facts of a process.
    pub(crate) bare: Finding,
    /// The process that it is about, as the snapshot has it.
    pub(crate) process: Option<Arc<Process>>,
    pub(crate) verdict: Verdict,
    /// Of an account: the processes that were counted.
    pub(crate) members: Vec<ProcessKey>,
}

impl Suspect {
    /// The finding about it, with the facts of the snapshot. Files, maps,
    /// ancestry and digest are gathered for what is reported only.
    pub(crate) fn finding(&self) -> Finding {
        let facts = self.process.as_deref().map(facts::of);
        let mut finding = self.bare.clone();
        finding.process = facts;
        finding
    }
}

/// What one scan found.
pub(crate) struct ScanOutcome {
    /// When the scan began.
    pub(crate) at: UnixMillis,
    /// Every process that was listed, kernel threads included.
    pub(crate) alive: HashSet<ProcessKey>,
    /// PIDs that were listed, of which nothing is known but that: an earlier
    /// run of the agent may have reported who has them.
    pub(crate) unknown: HashSet<u32>,
    /// PIDs of those that the scan left alone because of their age. Looks
    /// judge what needs no age of them.
    pub(crate) young: Vec<u32>,
    /// Processes with confirmed indicators, then accounts over a limit (their
    /// `Subject::Account.since` is the time of this scan: the reported set
    /// puts the beginning of the running episode in its place).
    pub(crate) suspects: Vec<Suspect>,
    pub(crate) stats: ScanStats,
    /// Degraded parts in words, for the host's status; said once by the caller.
    pub(crate) notes: Vec<String>,
}

impl ScanOutcome {
    /// Whether a process goes on, as far as is known: one that is listed has
    /// not ended.
    pub(crate) fn has(&self, key: &ProcessKey) -> bool {
        self.alive.contains(key) || self.unknown.contains(&key.pid)
    }
}

/// Time between two looks at one process of which the second confirms the
/// first. What confirmation guards against happens within one system call:
/// an execve(2) under way, a file that is being replaced.
pub(crate) const CONFIRM_PAUSE: Duration = Duration::from_millis(100);

/// What a look at some processes found.
pub(crate) struct LookOutcome {
    /// Processes with indicators that are confirmed by now.
    pub(crate) suspects: Vec<Suspect>,
    /// Of this look alone; its findings are those to report.
    pub(crate) stats: ScanStats,
    /// PIDs that another look should see, and after which time: what it saw
    /// waits to be confirmed, or they have to come of age.
    pub(crate) again: Vec<(u32, Duration)>,
}

/// What the processes of one scan or look are suspected of.
#[derive(Default)]
struct Suspicious {
    suspects: Vec<Suspect>,
    again: Vec<(u32, Duration)>,
}

/// Figures of one scan: the object of `scan --stats`.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(crate) struct ScanStats {
    pub(crate) processes: u64,
    pub(crate) wall_us: u64,
    pub(crate) cpu_us: u64,
    pub(crate) syscalls_skipped: u64,
    pub(crate) read_errors: u64,
    pub(crate) findings: u64,
}

impl Scanner {
    /// `proc_dir` is `/proc`, or a tree that looks like it.
    ///
    /// # Errors
    /// When it is neither, or no thread for account names can be started.
    pub(crate) fn new(proc_dir: &Path) -> anyhow::Result<Self> {
        let machine = Machine::new(ProcRoot::open(proc_dir)?)?;
        let cpanel_users_dir = PathBuf::from(CPANEL_USERS_DIR);
        Ok(Self {
            machine,
            confirmations: Confirmations::default(),
            cpanel_users_dir,
            web_groups: HashSet::new(),
            looks_for_hung_sshd: false,
        })
    }

    /// From the next scan on, scans pause so that they take no more than this
    /// share of one processor, in percent; without one they do not pause.
    pub(crate) const fn set_share(&mut self, percent: Option<u64>) {
        self.machine.set_share(percent);
    }

    /// No other scan will follow: what would wait for one is done at once.
    pub(crate) const fn put_nothing_off(&mut self) {
        self.machine.put_nothing_off();
    }

    /// Looks for logins that hang in sshd, too: the host kills them.
    pub(crate) const fn look_for_hung_sshd(&mut self, is_wanted: bool) {
        self.looks_for_hung_sshd = is_wanted;
    }

    /// The tree that is scanned.
    pub(crate) const fn root(&self) -> &ProcRoot {
        self.machine.root()
    }

    /// One pass over every process. Blocking: call it off the async threads.
    pub(crate) fn scan(&mut self, policy: &Policy, now: UnixMillis) -> ScanOutcome {
        let stopwatch = Stopwatch::start();
        let settings = policy.settings();
        let (scope, scope_note) = cpanel::scope(settings.users, &self.cpanel_users_dir);
        let Pass {
            snapshot,
            listed,
            unknown,
            counts,
            mut notes,
        } = self.machine.read(
            Wanted {
                settings,
                scope: &scope,
                waiting: self.confirmations.waiting(),
            },
            now,
        );
        notes.extend(scope_note);

        self.web_groups = detect::web_groups(settings, &snapshot);
        let web_groups = std::mem::take(&mut self.web_groups);
        let context = DetectContext::new(settings, &scope, &web_groups, Young::Wait)
            .with_hung(snapshot.hung());
        self.confirmations.begin_scan();
        let Suspicious { mut suspects, .. } =
            self.suspicious_processes(&snapshot, &context, policy, now);
        suspects.extend(self.suspicious_accounts(&snapshot, &context, policy, now));
        self.web_groups = web_groups;

        let stats = stats_of(listed, counts, &suspects, &stopwatch);
        ScanOutcome {
            at: now,
            alive: snapshot.alive(),
            unknown,
            young: detect::young_pids(&snapshot, settings),
            suspects,
            stats,
            notes,
        }
    }

    /// Looks at some processes between two scans: the same reading, detectors,
    /// confirmation and judge, and those below the minimum age are judged by
    /// what needs no age. PIDs that are gone are passed over; what is said of
    /// the others says nothing about who has ended, nor about accounts.
    ///
    /// A look counts as a reading: what needs two is confirmed by the next
    /// look or scan, so leave [`CONFIRM_PAUSE`] between two looks at the same
    /// process. Blocking, as a scan.
    pub(crate) fn look(&mut self, pids: &[u32], policy: &Policy, now: UnixMillis) -> LookOutcome {
        let stopwatch = Stopwatch::start();
        let settings = policy.settings();
        let (scope, _) = cpanel::scope(settings.users, &self.cpanel_users_dir);
        let wanted = Wanted {
            settings,
            scope: &scope,
            waiting: self.confirmations.waiting(),
        };
        let pass = self.machine.look(pids, wanted, now);
        let web_groups = std::mem::take(&mut self.web_groups);
        let context = DetectContext::new(settings, &scope, &web_groups, Young::AreJudged)
            .with_hung(pass.snapshot.hung());
        let Suspicious { suspects, again } =
            self.suspicious_processes(&pass.snapshot, &context, policy, now);
        self.web_groups = web_groups;
        LookOutcome {
            stats: stats_of(pass.listed, pass.counts, &suspects, &stopwatch),
            suspects,
            again,
        }
    }

    /// Looks at the suspects of one scan once more. What it learns about one,
    /// the next of the same scan share.
    pub(crate) fn gatherer(&self) -> Gatherer<'_> {
        Gatherer::new(self.machine.root(), self.machine.known_namespaces())
    }

    /// The boot whose processes are scanned.
    pub(crate) fn boot_id(&self) -> BootId {
        self.machine.root().boot_id()
    }

    /// The host's name, as the kernel knows it.
    pub(crate) fn host_name(&self) -> Option<String> {
        self.machine.root().host_name()
    }

    /// Whether the last scan saw something that another scan has to confirm.
    pub(crate) const fn awaits_confirmation(&self) -> bool {
        self.confirmations.pending() > 0
    }

    fn suspicious_processes(
        &mut self,
        snapshot: &Snapshot,
        context: &DetectContext<'_>,
        policy: &Policy,
        now: UnixMillis,
    ) -> Suspicious {
        // The agent does not suspect itself of talking to its collector.
        let myself = self.machine.root().own_pid();
        let mut suspicious = Suspicious::default();
        for process in snapshot
            .processes()
            .iter()
            .filter(|process| Some(process.key.pid) != myself)
        {
            let (mut indicators, wait) = self.confirmed(process, context);
            if self.looks_for_hung_sshd && context.settings.detects(&IndicatorId::HUNG_SSHD) {
                indicators.extend(detect::hung_sshd::detect(process));
            }
            suspicious
                .again
                .extend(wait.map(|wait| (process.key.pid, wait)));
            if indicators.is_empty() {
                continue;
            }
            let verdict = judge(policy, &RuleText::of_process(process), now);
            suspicious.suspects.push(Suspect {
                bare: facts::bare_finding(process, indicators, now),
                process: Some(Arc::clone(process)),
                verdict,
                members: Vec::new(),
            });
        }
        suspicious
    }

    /// What of a process is confirmed by this scan or look, and after which
    /// time a look should see more.
    fn confirmed(
        &mut self,
        process: &Process,
        context: &DetectContext<'_>,
    ) -> (Vec<Indicator>, Option<Duration>) {
        let whom = Whom::Process(process.key);
        let sightings = detect::detect(process, context);
        if context.young == Young::AreJudged {
            let pending_before = self.confirmations.pending();
            let indicators = self.confirmations.confirmed_between(whom, sightings);
            let awaits_confirmation = self.confirmations.pending() > pending_before;
            let wait = awaits_confirmation
                .then_some(CONFIRM_PAUSE)
                .or_else(|| detect::comes_of_age(process, context));
            return (indicators, wait);
        }
        if detect::is_young(process, context.settings) {
            self.confirmations.leave(whom);
        }
        (self.confirmations.confirmed(whom, sightings), None)
    }

    fn suspicious_accounts(
        &mut self,
        snapshot: &Snapshot,
        context: &DetectContext<'_>,
        policy: &Policy,
        now: UnixMillis,
    ) -> Vec<Suspect> {
        let mut is_ignored = |process: &Process| {
            judge(policy, &RuleText::of_process(process), now) != Verdict::Report
        };
        let mut accounts = detect::account_processes::detect(snapshot, context, &mut is_ignored);
        accounts.extend(detect::fork_bomb::detect(
            snapshot,
            context,
            &mut is_ignored,
        ));
        // What both say about one account is one finding.
        accounts.sort_by_key(|account| account.uid);
        let of_one = accounts.chunk_by(|a, b| a.uid == b.uid);
        of_one
            .filter_map(|of_one| self.suspicious_account(of_one, policy, now))
            .collect()
    }

    fn suspicious_account(
        &mut self,
        seen: &[AccountSighting],
        policy: &Policy,
        now: UnixMillis,
    ) -> Option<Suspect> {
        let account = seen.first()?;
        let sightings = seen
            .iter()
            .map(|account| account.sighting.clone())
            .collect();
        let indicators = self
            .confirmations
            .confirmed(Whom::Account(account.uid), sightings);
        if indicators.is_empty() {
            return None;
        }
        let mut members: Vec<ProcessKey> = seen
            .iter()
            // Only what is confirmed names processes to act upon.
            .filter(|a| indicators.iter().any(|i| i.id == a.sighting.indicator.id))
            .flat_map(|account| account.members.iter().copied())
            .collect();
        members.sort_unstable();
        members.dedup();
        let subject = Subject::Account {
            boot_id: self.boot_id(),
            uid: account.uid,
            since: now,
        };
        let finding = Finding {
            subject,
            indicators,
            observed_at: now,
            uid: account.uid,
            user: account.user.to_vec(),
            process: None,
            host: None,
            actions: Vec::new(),
            quiet: false,
        };
        let verdict = judge(policy, &RuleText::of_finding(&finding), now);
        Some(Suspect {
            bare: finding,
            process: None,
            verdict,
            members,
        })
    }
}

/// Whether a subject still exists, given what a scan saw.
pub(crate) fn is_alive(outcome: &ScanOutcome, subject: &Subject) -> bool {
    match subject {
        Subject::Process(key) => outcome.has(key),
        Subject::Account { uid, .. } => outcome
            .suspects
            .iter()
            .any(|s| matches!(s.bare.subject, Subject::Account { uid: u, .. } if u == *uid)),
        // The load watch knows (load.rs); no scan does.
        Subject::Host { .. } => true,
    }
}

fn stats_of(
    listed: u64,
    counts: ReadCounts,
    suspects: &[Suspect],
    stopwatch: &Stopwatch,
) -> ScanStats {
    let findings = suspects
        .iter()
        .filter(|suspect| suspect.verdict == Verdict::Report)
        .count();
    let (wall_us, cpu_us) = stopwatch.read();
    ScanStats {
        processes: listed,
        wall_us,
        cpu_us,
        syscalls_skipped: counts.skipped,
        read_errors: counts.errors,
        findings: u64::try_from(findings).unwrap_or(u64::MAX),
    }
}

/// Measures a scan: by the wall, and by this thread's use of a processor.
struct Stopwatch {
    wall: Instant,
    cpu_micros: u64,
}

impl Stopwatch {
    fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu_micros: thread_cpu_micros(),
        }
    }

    fn read(&self) -> (u64, u64) {
        let wall = u64::try_from(self.wall.elapsed().as_micros()).unwrap_or(u64::MAX);
        (wall, thread_cpu_micros().saturating_sub(self.cpu_micros))
    }
}

#[cfg(test)]
mod reused_pid;
#[cfg(test)]
mod tests;
