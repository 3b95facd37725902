//! Runs scripts beside the scanner: a few at a time, a few more waiting.
//!
//! Promises: the scanner never waits for a script; what came of each is
//! spooled as an update of its finding. When too many wait, the next one is
//! not run, and that is its record. Stops with the agent: what runs is killed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use procwarden_common::finding::{ActionRecord, Finding};
use procwarden_common::wire::Change;

use super::script::{self, Job};
use crate::clock;
use crate::spool::SharedSpool;

/// Scripts that run at the same time.
const WORKERS: usize = 2;
/// Scripts that wait. Each holds its finding with all evidence.
const WAITING_MAX: usize = 8;

/// One script that is to be run for a finding.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) variables: Vec<(&'static str, OsString)>,
    pub(crate) timeout: Duration,
    /// As it was reported.
    pub(crate) finding: Box<Finding>,
}

/// The threads that run scripts.
#[derive(Debug)]
pub(crate) struct Runner {
    waiting: Option<SyncSender<Run>>,
    workers: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    spool: SharedSpool,
}

impl Runner {
    /// Starts the threads.
    pub(crate) fn start(spool: &SharedSpool) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let receiver = Arc::new(Mutex::new(receiver));
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |number: usize| {
            let (receiver, stop, spool) = (Arc::clone(&receiver), Arc::clone(&stop), spool.clone());
            std::thread::Builder::new()
                .name(format!("script-{number}"))
                .spawn(move || work(&receiver, &stop, &spool))
        };
        Ok(Self {
            waiting: Some(sender),
            workers: (0..WORKERS).map(worker).collect::<Result<_, _>>()?,
            stop,
            spool: spool.clone(),
        })
    }

    /// Puts a script into the queue.
    pub(crate) fn submit(&self, run: Run) {
        let Some(waiting) = &self.waiting else { return };
        match waiting.try_send(run) {
            Ok(()) => {}
            Err(TrySendError::Full(run) | TrySendError::Disconnected(run)) => {
                record(&self.spool, run, "failed: too many scripts wait already");
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waiting = None;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("A thread that runs scripts broke: see the log above.");
            }
        }
    }
}

fn work(receiver: &Mutex<Receiver<Run>>, stop: &AtomicBool, spool: &SharedSpool) {
    loop {
        let next = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(run) = next else { return };
        if stop.load(Ordering::Relaxed) {
            record(spool, run, "failed: the agent stopped before it began");
            continue;
        }
        let job = Job {
            path: &run.path,
            arguments: &run.arguments,
            variables: &run.variables,
            timeout: run.timeout,
        };
        let result = script::run(&job, stop);
        record(spool, run, &result);
    }
}

fn record(spool: &SharedSpool, run: Run, result: &str) {
    let record = ActionRecord::new(clock::now(), run.what, result);
    tracing::info!(
        action = run.what,
        result = record.result,
        "A script was run for a finding."
    );
    let mut finding = run.finding;
    finding.actions = vec![record];
    if !spool.append(&[Change::Reported(finding)]) {
        tracing::warn!(
            "What came of a script waits in memory, because the spool cannot be written."
        );
    }
}
