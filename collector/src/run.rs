//! The commands of the collector, and the road of `serve`: configuration,
//! identity, ledger, findings, sockets, then serve until told to stop.
//!
//! Promises: what was acked before a stop is on the disk; a second signal ends
//! the process at once; a configuration that is wrong changes nothing.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use procwarden_common::clock::UnixMillis;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::{self, AdminContext};
use crate::alert::{self, AlertContext, Outbox};
use crate::ca::{Authority, AuthorityError};
use crate::cli::{Command, StoreCommand};
use crate::clock;
use crate::config::Config;
use crate::enroll::{self, EnrollContext};
use crate::findings::Findings;
use crate::fleet::{self, FleetContext};
use crate::ledger::Ledger;
use crate::metrics::{self, Meters, MetricsContext};
use crate::open_files;
use crate::rollouts::{self, Rollouts};
use crate::service;
use crate::sessions::Sessions;

mod backup;
mod failure;
mod hourly;
mod init;
mod listeners;
mod load;

mod signals;
mod store;

pub(crate) use failure::{Failure, explain};
use listeners::Listeners;
use signals::{Signal, Signals};

/// Longest wait for what is in flight; what is not acked by then is sent again.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Wait for threads that still read when everything else has ended.
const THREADS_END_MAX: Duration = Duration::from_secs(2);

/// Runs one command to its end.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(options) => init::init(&options, clock::now()),
        Command::Serve(option) => serve(&option.config),
        Command::Store(StoreCommand::Check(option)) => store::check(&load::load(&option.config)?),
        Command::Store(StoreCommand::Rebuild(option)) => {
            store::rebuild(&load::load(&option.config)?)
        }
        Command::Store(StoreCommand::Export(options)) => backup::export(&options),
        Command::Store(StoreCommand::Restore(options)) => backup::restore(&options),
    }
}

fn serve(config_file: &Path) -> Result<(), Failure> {
    let config = load::load(config_file)?;
    open_files::raise();
    // An error means that a provider is there already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(collect(config_file, config));
    runtime.shutdown_timeout(THREADS_END_MAX);
    result
}

/// The road.
async fn collect(config_file: &Path, config: Config) -> Result<(), Failure> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let Some(parts) = open(config, &mut signals).await? else {
        return Ok(());
    };
    let listeners = Listeners::bind(&parts.config.load().listen)?;
    listeners.announce();

    let (stop, shutdown) = watch::channel(false);
    let mut servers = parts.start(listeners, &shutdown);
    service::ready();
    tokio::spawn(service::feed_watchdog());
    let result = parts.serve(config_file, &mut servers, &mut signals).await;
    stop.send_replace(true);
    if result.is_ok() {
        tracing::info!("Stopping: finishing what is in flight.");
        service::stopping();
        drain(&parts, servers, &mut signals).await;
        tracing::info!("Stopped.");
    }
    result
}

/// Opens the parts; nothing when a signal says stop before that has come to an
/// end. Verifying or making a long index again takes minutes, and whatever is
/// left half done the next start does again.
async fn open(config: Config, signals: &mut Signals) -> Result<Option<Parts>, Failure> {
    let opening = tokio::task::spawn_blocking(move || Parts::open(config));
    tokio::select! {
        opened = opening => {
            let parts = opened.context("opening the data directory was cut short")?;
            parts.map(Some)
        }
        () = signals.stop() => {
            tracing::info!("Stopped while opening the data directory; the next start goes on.");
            Ok(None)
        }
    }
}

/// What the servers share.
struct Parts {
    config: Arc<ArcSwap<Config>>,
    authority: Arc<Authority>,
    ledger: Ledger,
    findings: Findings,
    sessions: Sessions,
}

/// What runs until it is told to stop.
struct Servers {
    /// Each ends with its name and how it ended.
    listening: JoinSet<(&'static str, anyhow::Result<()>)>,
    alerts: JoinHandle<()>,
}

impl Parts {
    /// Opens everything below the data directory; the identity first, so that
    /// nothing is made in a directory that `init` has not seen.
    fn open(config: Config) -> Result<Self, Failure> {
        let data_dir = &config.data_dir;
        let authority = Authority::load(data_dir).map_err(|error| match error {
            AuthorityError::Missing { .. } => Failure::not_initialised(data_dir),
            other => Failure::Runtime(other.into()),
        })?;
        let ledger = Ledger::open(data_dir)?;
        let findings = Findings::open(data_dir)?;
        Ok(Self {
            config: Arc::new(ArcSwap::from_pointee(config)),
            authority: Arc::new(authority),
            ledger,
            findings,
            sessions: Sessions::new(),
        })
    }

    fn start(&self, listeners: Listeners, shutdown: &watch::Receiver<bool>) -> Servers {
        let Listeners {
            fleet,
            enroll,
            admin,
            metrics,
            fleet_address,
            enroll_address,
            ..
        } = listeners;
        let (authority, ledger, findings) = (
            self.authority.clone(),
            self.ledger.clone(),
            self.findings.clone(),
        );
        let (outbox, alerts) = alert::start(
            AlertContext {
                config: self.config.clone(),
                ledger: ledger.clone(),
                findings: findings.clone(),
                fleet_id: authority.fleet_id(),
            },
            shutdown.clone(),
        );
        let started_at = clock::now();
        let rollouts = Rollouts::new(ledger.clone(), self.sessions.clone(), started_at);
        rollouts::start(rollouts.clone(), self.config.clone(), shutdown);
        let meters = Meters::new();
        let metrics_context = self.metrics(outbox.clone(), &meters, started_at);
        let admin_context = AdminContext {
            config: self.config.clone(),
            ledger: ledger.clone(),
            authority: authority.clone(),
            findings: findings.clone(),
            sessions: self.sessions.clone(),
            rollouts,
            outbox,
            started_at,
            fleet_address,
            enroll_address,
            shutdown: shutdown.clone(),
        };
        let enroll_context = EnrollContext {
            authority: authority.clone(),
            ledger: ledger.clone(),
            fleet_port: fleet_address.port(),
        };
        let fleet_context = FleetContext {
            authority,
            ledger,
            findings,
            sessions: self.sessions.clone(),
            meters,
        };
        let mut listening = JoinSet::new();
        let stop = || shutdown.clone();
        let fleet = fleet::serve(fleet, fleet_context, stop());
        listening.spawn(async move { ("fleet", fleet.await) });
        let enroll = enroll::serve(enroll, enroll_context, stop());
        listening.spawn(async move { ("enrolment", enroll.await) });
        let admin = admin::serve(admin, admin_context, stop());
        listening.spawn(async move { ("admin", admin.await) });
        if let Some(listener) = metrics {
            let metrics = metrics::serve(listener, metrics_context, stop());
            listening.spawn(async move { ("metrics", metrics.await) });
        }
        Servers { listening, alerts }
    }

    fn metrics(&self, outbox: Outbox, meters: &Meters, started_at: UnixMillis) -> MetricsContext {
        MetricsContext {
            ledger: self.ledger.clone(),
            authority: self.authority.clone(),
            findings: self.findings.clone(),
            sessions: self.sessions.clone(),
            outbox,
            meters: meters.clone(),
            started_at,
        }
    }

    /// In a task of its own: a signal must not wait for it.
    fn look_after(&self, is_steady: bool) {
        let config = self.config.load_full();
        tokio::spawn(hourly::look_after(self.findings.clone(), config, is_steady));
    }

    /// Until a signal says stop, or something fails that cannot be served with.
    async fn serve(
        &self,
        config_file: &Path,
        servers: &mut Servers,
        signals: &mut Signals,
    ) -> Result<(), Failure> {
        let mut hourly = hourly::Clockwork::new();
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return Ok(()),
                    Signal::Reload => load::reload(config_file, &self.config),
                },
                is_steady = hourly.due() => self.look_after(is_steady),
                why = self.ledger.failed() => return Err(Failure::stopped(why)),
                why = self.findings.failed() => return Err(Failure::stopped(why)),
                Some(ended) = servers.listening.join_next() => {
                    return Err(Failure::server_ended(ended));
                }
            }
        }
    }
}

/// Waits for the servers and the alerts, then closes the findings.
async fn drain(parts: &Parts, mut servers: Servers, signals: &mut Signals) {
    let finish = async {
        while let Some(ended) = servers.listening.join_next().await {
            if let Ok((name, Err(error))) = ended {
                tracing::error!(listener = name, error = %format!("{error:#}"), "A listener failed while stopping.");
            }
        }
        if let Err(error) = servers.alerts.await {
            tracing::error!(%error, "The alerts failed while stopping.");
        }
        parts.findings.close().await;
    };
    tokio::select! {
        () = finish => {}
        () = tokio::time::sleep(DRAIN_MAX) => {
            tracing::warn!("Not everything ended in time; hosts will send again what was not acked.");
        }
        () = signals.stop_again() => {
            tracing::warn!("Second signal: ending at once.");
            std::process::exit(1);
        }
    }
}

/// Standard output belongs to what was asked for; nobody there is no error.
fn say(line: &str) {
    // Unit tests look at what is done, not at what is said.
    if cfg!(test) {
        return;
    }
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%error, "Standard output is closed.");
    }
}
