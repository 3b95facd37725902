//! The crash harness: a real collector under the load of simulated agents is
//! ended at random moments, and what it answers afterwards is compared with
//! what it had acknowledged.
//!
//! Three ways to end it: SIGKILL ([`Mode::Kill`]); the loss of power of the
//! disk that it writes to ([`Mode::Power`], the model is in `disk`); and the
//! same with sled alone as the truth ([`Mode::Control`]), which has to show
//! loss: a harness that cannot see loss proves nothing.
//!
//! The agent's side of the same promise is [`Mode::Spool`].
//!
//! Some rounds end the collector again while it starts, some take its index
//! away. After a number of rounds a history is closed: everything is sent and
//! acknowledged, the listing is compared with all of it, the journal must hold
//! as many records as there were different events, and an index made anew must
//! give the same answers. Then the next history begins with an empty fleet.
//!
//! Promises: every acknowledgement that an agent received counts, those that
//! came after the crash had begun as well. Whatever was started, mounted or
//! attached ends with the harness.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use procwarden_common::token::Token;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::collector::{Collector, text};

mod agents;
mod api;
pub mod control;
mod disk;
mod spool;
pub mod truth;

use agents::{Agents, Standing};
use disk::Disk;

/// Simulated agents of a history.
const AGENTS: usize = 6;

/// Room for the collector's data: twenty rounds take less than 50 MB.
const DISK_BYTES: u64 = 256 << 20;

/// Longest load between the first acknowledgement of a round and its end.
const LOAD_MS: u64 = 200;

/// Longest time that a collector runs on a disk without power.
const DARK_MS: u64 = 30;

/// Longest time that a start is given before it is cut short, when it is.
const START_MS: u64 = 120;

/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// Rounds between two looks at the answers, on average.
const CHECK_EVERY: u8 = 4;

/// Longest wait for an index that is being opened or made anew.
const INDEX_PATIENCE: Duration = Duration::from_secs(300);

/// Lost events that a report names.
const LOST_WHERE_MAX: usize = 50;

/// Pause before an incomplete answer is asked for again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How the collector is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// SIGKILL.
    Kill,
    /// The disk loses its power.
    Power,
    /// The disk loses its power, and sled alone has written to it.
    Control,
    /// The disk of an agent loses its power while its collector is away.
    Spool,
}

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How the collector is ended.
    pub mode: Mode,
    /// How often.
    pub rounds: u64,
    /// Rounds of one history.
    pub history: u64,
    /// Where directories and disk images are made.
    pub directory: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
struct Tally {
    histories: u64,
    starts_cut_short: u64,
    indexes_removed: u64,
    acked: u64,
    checked: u64,
    lost: u64,
    doubled: u64,
    /// Where in its history each of the first lost events was acknowledged.
    lost_where: Vec<String>,
}

/// Runs the rounds of a plan and reports what was lost or doubled.
///
/// # Errors
/// When the collector does not come back, or does not answer: that is a
/// failure of the collector as much as a lost finding.
///
/// # Panics
/// When a program does not do its part.
pub fn run(plan: &Plan) -> anyhow::Result<Value> {
    match plan.mode {
        Mode::Kill => crash(plan),
        Mode::Power => on_a_disk(plan, crash),
        Mode::Control => on_a_disk(plan, control::run),
        Mode::Spool => on_a_disk(plan, spool::run),
    }
}

/// Runs a plan, if power cuts can be made here.
fn on_a_disk(plan: &Plan, run: fn(&Plan) -> anyhow::Result<Value>) -> anyhow::Result<Value> {
    match disk::probe(&plan.directory) {
        Ok(()) => run(plan),
        Err(error) => Ok(skipped(plan, &error)),
    }
}

/// The report of a run that this machine does not allow.
#[must_use]
pub fn skipped(plan: &Plan, why: &anyhow::Error) -> Value {
    json!({
        "mode": plan.mode.word(),
        "rounds": 0,
        "skipped": format!("no power cuts can be made here: {why:#}"),
    })
}

fn crash(plan: &Plan) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut tally = Tally::default();
    let mut left = plan.rounds;
    while left > 0 {
        let rounds = left.min(plan.history.max(1));
        let mut history = History::begin(&runtime, plan)?;
        for round in 0..rounds {
            history
                .round(&mut tally)
                .with_context(|| history.words(round))?;
        }
        history
            .close(&mut tally)
            .with_context(|| history.words(rounds))?;
        tally.histories += 1;
        left -= rounds;
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(json!({
        "mode": plan.mode.word(),
        "rounds": plan.rounds,
        "histories": tally.histories,
        "starts_cut_short": tally.starts_cut_short,
        "indexes_removed": tally.indexes_removed,
        "acked": tally.acked,
        "checked": tally.checked,
        "lost": tally.lost,
        "doubled": tally.doubled,
        "lost_where": tally.lost_where,
        "seconds": seconds,
        "seconds_per_round": seconds / plan.rounds.max(1) as f64,
    }))
}

impl Mode {
    /// The word for it on the command line and in reports.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Control => "control",
            Self::Spool => "spool",
        }
    }
}

/// One fleet from its first start to the last look at all it recorded.
struct History<'a> {
    runtime: &'a Runtime,
    agents: Agents,
    collector: Collector,
    /// Where its data is; none lies in the directory with the rest.
    disk: Option<Disk>,
    /// Up to here every answer was compared.
    checked: Standing,
    /// Where agents stood at the end of each round.
    rounds: Vec<Standing>,
    /// Its programs' files; the last one to go.
    _directory: tempfile::TempDir,
}

impl<'a> History<'a> {
    fn begin(runtime: &'a Runtime, plan: &Plan) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procwarden-crash-")
            .tempdir_in(&plan.directory)?;
        let data_dir = directory.path().join("collector");
        let disk = match plan.mode {
            Mode::Power => Some(Disk::create(directory.path(), &data_dir, DISK_BYTES)?),
            Mode::Kill | Mode::Control | Mode::Spool => None,
        };
        let mut collector = Collector::init(directory.path(), None);
        collector.start();
        let token = Token::parse(&collector.token(&["--uses", &AGENTS.to_string()]))?;
        let ca = collector.data_dir().join("ca/ca.pem");
        let ca = CertificateDer::from_pem_file(&ca).context("cannot read the CA")?;
        let agents = runtime.block_on(Agents::enroll(&token, &ca, AGENTS))?;
        let history = Self {
            runtime,
            checked: agents.standing(),
            rounds: Vec::new(),
            agents,
            collector,
            disk,
            _directory: directory,
        };
        history.reach()?;
        Ok(history)
    }

    /// Load, the end, the next start, and now and then a look at what it answers.
    fn round(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let before = self.agents.standing().acked_in_all();
        if fastrand::u8(..4) > 0 {
            self.wait_for("an acknowledgement", |now| now.acked_in_all() > before)?;
        }
        std::thread::sleep(Duration::from_millis(fastrand::u64(..=LOAD_MS)));
        if let Some(disk) = &self.disk {
            disk.cut()?;
            // It may find out by itself, or be gone before it does.
            std::thread::sleep(Duration::from_millis(fastrand::u64(..=DARK_MS)));
        }
        self.collector.kill();
        self.agents.reach(0);
        self.rounds.push(self.agents.standing());
        if let Some(disk) = &mut self.disk {
            disk.revive()?;
        }
        self.collector.forget_addresses();
        if fastrand::u8(..8) == 0 {
            remove_index(&self.collector.data_dir())?;
            tally.indexes_removed += 1;
        }
        while fastrand::u8(..4) == 0 {
            let after = Duration::from_millis(fastrand::u64(..=START_MS));
            self.collector.start_and_kill(after);
            tally.starts_cut_short += 1;
        }
        self.collector.start();
        self.reach()?;
        // What is lost stays lost until the history is closed. Not waiting for
        // the index lets the next end come while it is still being opened.
        match fastrand::u8(..CHECK_EVERY) {
            0 => self.check(tally),
            _ => Ok(()),
        }
    }

    /// Compares what was acknowledged since the last look. Agents tell nothing
    /// new meanwhile: the longer a look takes, the more the next would have to
    /// look at.
    fn check(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        let now = self.agents.standing();
        let ranges = now.ranges_since(&self.checked);
        self.agents.be_quiet(true);
        let since_ms = self.checked.oldest_unacked_ms;
        let verdict = self.verdict(&ranges, since_ms, tally.patience());
        self.agents.be_quiet(false);
        self.add(verdict?, tally);
        self.checked = now;
        Ok(())
    }

    /// What the collector's answers say once its index has caught up: what is
    /// missing for a moment is not lost.
    fn verdict(
        &self,
        ranges: &[truth::Range],
        since_ms: i64,
        patience: Duration,
    ) -> anyhow::Result<truth::Verdict> {
        let socket = self.collector.socket();
        let begin = Instant::now();
        loop {
            let answers = api::findings_since(&socket, since_ms);
            let answers = self.runtime.block_on(answers);
            let verdict = answers.map(|answers| truth::compare(ranges, &answers));
            // The collector serves agents while its index is being opened.
            let is_whole = verdict.as_ref().is_ok_and(|v| v.missing.is_empty());
            if is_whole || begin.elapsed() > patience {
                return verdict;
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// Everything is acknowledged, then compared as a whole, under the index
    /// as it is and under one made anew from the journal.
    fn close(&mut self, tally: &mut Tally) -> anyhow::Result<()> {
        self.agents.be_quiet(true);
        self.wait_for("every acknowledgement", |now| {
            now.acked_in_all() == now.sent_in_all()
        })?;
        let all = self.agents.standing();
        let ranges = all.ranges_since(&Standing::default());
        tally.acked += all.acked_in_all();
        let verdict = self.verdict(&ranges, 0, tally.patience())?;
        self.add(verdict, tally);
        let ended = self.collector.stop();
        ensure!(ended.success(), "the collector stopped with {ended}");

        let records = self.records("check")?;
        tally.doubled += records.saturating_sub(all.sent_in_all());
        tally.lost += all.sent_in_all().saturating_sub(records);
        let rebuilt = self.records("rebuild")?;
        ensure!(
            rebuilt == records,
            "a rebuild reads {rebuilt} records, not {records}"
        );
        self.collector.forget_addresses();
        self.collector.start();
        let verdict = self.verdict(&ranges, 0, tally.patience())?;
        self.add(verdict, tally);
        let ended = self.collector.stop();
        ensure!(ended.success(), "the collector stopped with {ended}");
        Ok(())
    }

    /// Records in the findings journal, as a `store` command counts them.
    fn records(&self, command: &str) -> anyhow::Result<u64> {
        let output = self.collector.command(&["store", command]).output()?;
        let said = text(&output.stdout);
        let fault = || format!("store {command} said {said:?} {}", text(&output.stderr));
        ensure!(output.status.success(), "{}", fault());
        let mut words = said
            .split_whitespace()
            .skip_while(|word| *word != "journal");
        let records = words.nth(1).and_then(|word| word.parse().ok());
        records.with_context(fault)
    }

    /// Tells the agents where the collector listens.
    fn reach(&self) -> anyhow::Result<()> {
        let address = &self.collector.addresses().fleet;
        let port = address.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
        self.agents
            .reach(port.context("the collector names no port")?);
        Ok(())
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Standing) -> bool) -> anyhow::Result<()> {
        wait_for(what, || done(&self.agents.standing()))
    }

    /// Adds what a look at the answers found, and where it points.
    fn add(&self, verdict: truth::Verdict, tally: &mut Tally) {
        tally.checked += verdict.checked;
        tally.doubled += verdict.doubled;
        tally.lost += verdict.missing.len() as u64;
        for missing in &verdict.missing {
            if tally.lost_where.len() < LOST_WHERE_MAX {
                tally.lost_where.push(self.place(*missing));
            }
        }
    }

    /// Where a lost event lies among those that its agent was told are durable.
    fn place(&self, missing: truth::Missing) -> String {
        let truth::Missing { agent, sequence } = missing;
        let acked = |standing: &Standing| standing.acked.get(agent).copied().unwrap_or(0);
        let round = self.rounds.partition_point(|end| acked(end) < sequence);
        let before = round.checked_sub(1).and_then(|r| self.rounds.get(r));
        let from = before.map_or(0, acked);
        let to = self
            .rounds
            .get(round)
            .map_or_else(|| acked(&self.agents.standing()), acked);
        let looked = self.rounds.len();
        format!(
            "event {sequence} of agent {agent}, missed after {looked} ends: acknowledged before \
             end {round} with those from {from} to {to}"
        )
    }

    /// Where in the history something went wrong.
    fn words(&self, round: u64) -> String {
        let log = self.collector.log();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!(
            "in round {round} of a history; the collector's log ends with:\n{}",
            tail.join("\n")
        )
    }
}

impl Tally {
    /// What is lost does not come back: nobody waits for it twice.
    fn patience(&self) -> Duration {
        match self.lost {
            0 => INDEX_PATIENCE,
            _ => Duration::ZERO,
        }
    }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !done() {
        if begin.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?} for {what}");
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// The index is a copy that can be lost at any time.
fn remove_index(data_dir: &Path) -> anyhow::Result<()> {
    let index = data_dir.join("index");
    if index.is_dir() {
        std::fs::remove_dir_all(&index).context("cannot remove the index")?;
    }
    Ok(())
}
