//! `procwarden-agent run`, from top to bottom: configuration, identity, lock,
//! policy, spool, scanner, uplink; then signals, until it stops in order.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use procwarden_common::policy::Policy;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::actions::Actions;
use crate::address::Address;
use crate::cli::CommonArgs;
use crate::config::Config;
use crate::events::{self, Lookout};
use crate::files::FileError;
use crate::health::{Board, Part};
use crate::hits::SharedHits;
use crate::hits::file::HitsFile;
use crate::identity::{Facts, Identity};
use crate::load::LoadWatch;
use crate::policy::{Loaded, PolicyStore};
use crate::procfs::ProcRoot;
use crate::reported::Reported;
use crate::reported::file::ReportedFile;
use crate::scan::Scanner;
use crate::service::{self, Watchdog};
use crate::spool::{DroppedReports, SharedSpool, Spool};
use crate::status::{StatusFile, Who};
use crate::tls::LiveCertificate;
use crate::uplink::Uplink;
use crate::{clock, identity, lock, tls};
use scanning::{Brief, Scanning, Wake, Waker};

mod open_files;
mod reload;
pub(crate) mod scanning;

/// How long a stopping agent waits for a scan that is under way.
const SCAN_END_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it waits for the uplink to say goodbye.
const UPLINK_END_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stop takes at most; the shipped unit gives it more.
#[cfg(test)]
pub(crate) const STOP_TIMEOUT: Duration = SCAN_END_TIMEOUT.saturating_add(UPLINK_END_TIMEOUT);

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &CommonArgs) -> anyhow::Result<ExitCode> {
    let config = load_config(args)?;
    // First, so that a host that never enrolled gets no empty directories.
    let identity = identity::load(&config.state_dir)?;
    let _lock = lock::take(&config.state_dir)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?
        .block_on(work(args, config, identity))
}

/// The configuration of a command: the file, and what flags override.
pub(crate) fn load_config(args: &CommonArgs) -> anyhow::Result<Config> {
    let (mut config, warnings) = Config::load(args.config.as_deref())?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(dir) = &args.state_dir {
        config.state_dir.clone_from(dir);
    }
    Ok(config)
}

/// What signals act upon.
struct Controls {
    address: watch::Sender<Address>,
    spool: SharedSpool,
    scanner: Waker,
    lookout: Arc<Lookout>,
    events: Arc<events::Switch>,
    cpu_percent: watch::Sender<u64>,
    board: Arc<Board>,
    status: Arc<StatusFile>,
}

async fn work(args: &CommonArgs, config: Config, identity: Identity) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let (shutdown, shutdown_seen) = watch::channel(false);
    let (waker, wakes) = scanning::waker();
    // First: what is opened from here on may need it.
    let files_note = open_files::raise();
    let (scanning, load_watch, uplink, controls) =
        prepare(&config, identity, waker).map_err(with_next_step)?;
    (controls.board).set_notes(Part::OpenFiles, files_note.into_iter().collect());
    let (collector, state_dir) = (
        controls.address.borrow().clone(),
        config.state_dir.display(),
    );
    tracing::info!(%collector, %state_dir, version = env!("CARGO_PKG_VERSION"), "The agent runs.");

    events::start(
        &controls.events,
        &controls.lookout,
        &controls.scanner,
        &controls.board,
    )
    .context("cannot start the thread that reads events")?;
    let mut scanner_done = scanning
        .start(wakes)
        .context("cannot start the scanner's thread")?;
    let watching = load_watch.start().context("cannot start the load watch")?;
    let mut uplink_done = tokio::spawn(uplink.run(shutdown_seen));
    let mut watchdog = Watchdog::of_environment();
    let mut look_around = tokio::time::interval(watchdog.interval);
    service::ready();
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hangup.recv() => controls.reload(args, &config),
            _ = look_around.tick() => {
                // First: what it notices belongs into the status.
                watchdog.feed(&controls.board, Instant::now());
                controls.status.write(&controls.board);
            }
            _ = &mut scanner_done => anyhow::bail!("the scanner broke: see the log above"),
            end = &mut uplink_done => {
                end.context("the uplink broke")?;
                anyhow::bail!("the uplink ended by itself");
            }
        }
    }
    // A sample that is being taken lasts a moment.
    drop(watching);
    stop(&controls.scanner, scanner_done, &shutdown, uplink_done).await;
    Ok(ExitCode::SUCCESS)
}

/// A host that is short of something for a moment has harmed nothing: that is
/// not to be taken for a broken disk.
fn with_next_step(error: anyhow::Error) -> anyhow::Error {
    let is_passing = (error.downcast_ref::<FileError>()).is_some_and(FileError::is_passing);
    if !is_passing {
        return error;
    }
    error.context(
        "short of open files or memory; nothing is lost, and the next start goes on where this one \
         was (systemd starts the agent again after 5 seconds): if this repeats, raise LimitNOFILE= or \
         `ulimit -n`, or free memory",
    )
}

/// Opens everything that lies in the state directory and ties the parts
/// together. Nothing runs yet.
fn prepare(
    config: &Config,
    identity: Identity,
    scanner_waker: Waker,
) -> anyhow::Result<(Scanning, LoadWatch, Uplink, Controls)> {
    let dir = &config.state_dir;
    let (address, address_changes) = watch::channel(collector_of(config, &identity.facts));
    let board = Arc::new(Board::default());
    let spool = open_spool(config, &board)?;
    let policies = load_policies(dir, &board)?;
    let awaits_policy =
        policies.damaged.is_none() && policies.store.state().applied_hash.is_empty();
    let (policy, policy_changes) = watch::channel(policies.policy);
    let who = Who {
        facts: identity.facts.clone(),
        started_at: clock::now(),
    };
    let status = Arc::new(StatusFile::new(dir, who, address_changes.clone()));
    let (reported_file, reported) = load_reported(dir)?;
    let (hits_file, hits) = load_hits(dir)?;
    let (scanner, actions) = scanner_for(config, &spool)?;
    let certificate = Arc::new(LiveCertificate::new(identity.certified));
    let uplink = Uplink {
        state_dir: dir.clone(),
        boot_id: scanner.boot_id(),
        tls: Arc::new(tls::fleet_config(&identity.ca, Arc::clone(&certificate))?),
        facts: identity.facts,
        ca: identity.ca,
        certificate,
        validity: Mutex::new(identity.validity),
        address: address_changes,
        spool: spool.clone(),
        policies: Arc::new(Mutex::new(policies.store)),
        policy,
        scanner: scanner_waker.clone(),
        hits: hits.clone(),
        board: Arc::clone(&board),
        status: Arc::clone(&status),
    };
    let lookout = Arc::new(Lookout::new(config.cpu_percent, Instant::now()));
    let (cpu_percent, cpu_percent_changes) = watch::channel(config.cpu_percent);
    let load_watch = load_watch(config, &policy_changes, &spool)?;
    let scanning = Scanning {
        scanner,
        actions,
        lookout: Arc::clone(&lookout),
        cpu_percent: cpu_percent_changes,
        reported,
        brief: Brief::default(),
        unsaid: DroppedReports::default(),
        reported_file,
        hits,
        hits_file,
        policy: policy_changes,
        awaits_policy,
        spool: spool.clone(),
        board: Arc::clone(&board),
        status: Arc::clone(&status),
    };
    Ok((
        scanning,
        load_watch,
        uplink,
        Controls {
            address,
            spool,
            scanner: scanner_waker,
            lookout,
            events: Arc::new(events::Switch::new(config.events)?),
            cpu_percent,
            board,
            status,
        },
    ))
}

/// The scanner, and what acts upon its findings.
fn scanner_for(config: &Config, spool: &SharedSpool) -> anyhow::Result<(Scanner, Actions)> {
    let mut scanner = Scanner::new(Path::new("/proc"))?;
    scanner.look_for_hung_sshd(config.actions.kill_hung_sshd);
    let actions = Actions::start(config.actions.clone(), spool)
        .context("cannot start the threads that run scripts")?;
    Ok((scanner, actions))
}

fn load_watch(
    config: &Config,
    policy: &watch::Receiver<Arc<Policy>>,
    spool: &SharedSpool,
) -> anyhow::Result<LoadWatch> {
    Ok(LoadWatch {
        root: ProcRoot::open(Path::new("/proc"))?,
        state_dir: config.state_dir.clone(),
        policy: policy.clone(),
        spool: spool.clone(),
        actions: config.actions.clone(),
    })
}

fn collector_of(config: &Config, facts: &Facts) -> Address {
    config
        .collector
        .clone()
        .unwrap_or_else(|| facts.collector.clone())
}

fn open_spool(config: &Config, board: &Arc<Board>) -> anyhow::Result<SharedSpool> {
    let opened = Spool::open(
        &config.state_dir.join("spool"),
        config.spool_max_bytes,
        random_salt,
    )?;
    if opened.torn_bytes > 0 {
        tracing::warn!(
            bytes = opened.torn_bytes,
            "The end of the spool was torn by an interrupted write and is cut off."
        );
    }
    if opened.damaged > 0 {
        tracing::error!(
            places = opened.damaged,
            "The spool is damaged: the events there are lost, all others are kept."
        );
    }
    if opened.state_lost {
        tracing::error!(
            "The spool's state is damaged: what was sent is sent again, and the count of drops starts over."
        );
    }
    if opened.owed_lost {
        tracing::error!(
            "The spool's list of what was dropped is damaged: all findings that go on are reported anew, and the collector goes on to show those as open whose ends were listed."
        );
    }
    Ok(SharedSpool::new(opened.spool, Arc::clone(board)))
}

fn load_policies(state_dir: &Path, board: &Board) -> anyhow::Result<Loaded> {
    let loaded = PolicyStore::load(state_dir)?;
    let state = loaded.store.state();
    match &loaded.damaged {
        Some(reason) => board.set_notes(
            Part::Policy,
            vec![format!(
                "the last good policy cannot be used, nothing is ignored until the collector sends one: {reason}"
            )],
        ),
        None if state.applied.is_empty() => {
            tracing::info!("There is no policy yet: nothing is ignored.");
        }
        None => tracing::info!(rules = loaded.policy.rules().len(), "The last good policy is applied."),
    }
    board.update(|health| health.policy = state);
    Ok(loaded)
}

fn load_reported(state_dir: &Path) -> anyhow::Result<(ReportedFile, Reported)> {
    let (file, reported, damaged) = ReportedFile::load(state_dir)?;
    if damaged {
        tracing::error!("The file of what was reported is damaged: findings are reported again.");
    }
    Ok((file, reported))
}

fn load_hits(state_dir: &Path) -> anyhow::Result<(HitsFile, SharedHits)> {
    let (file, hits, damaged) = HitsFile::load(state_dir)?;
    if damaged {
        tracing::error!("The file of what rules ignored is damaged: the counts start anew.");
    }
    Ok((file, SharedHits::new(hits)))
}

/// Without randomness from the kernel, the time still differs per segment.
fn random_salt() -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock::now().0.unsigned_abs())
}

/// The scan that runs is finished and spooled, then the uplink sends what it
/// can and says goodbye. Each has its time; what is spooled is not lost.
async fn stop(
    scanner: &Waker,
    scanner_done: oneshot::Receiver<()>,
    shutdown: &watch::Sender<bool>,
    uplink_done: JoinHandle<()>,
) {
    tracing::info!("The agent stops.");
    service::stopping();
    scanner.wake(Wake::Stop);
    if timeout(SCAN_END_TIMEOUT, scanner_done).await.is_err() {
        tracing::warn!("The scan that runs takes too long and is broken off.");
    }
    shutdown.send_replace(true);
    if timeout(UPLINK_END_TIMEOUT, uplink_done).await.is_err() {
        tracing::warn!(
            "The uplink takes too long and is broken off; what was not acknowledged is sent at the next start."
        );
    }
    tracing::info!("The agent has stopped.");
}

/// The signals that mean something to the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_start_that_is_short_of_descriptors_says_what_to_do_and_a_bad_disk_does_not() {
        for (errno, is_passing) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::NOMEM, true),
            (Errno::IO, false),
        ] {
            let error = FileError::new("read", Path::new("/s/owed"), errno.into());
            let words = format!("{:#}", with_next_step(error.into()));
            assert!(words.contains("cannot read /s/owed"), "{words}");
            assert_eq!(words.contains("nothing is lost"), is_passing, "{words}");
        }
    }
}
