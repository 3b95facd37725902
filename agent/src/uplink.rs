//! The link to the collector: connects, keeps the stream, comes back.
//!
//! Promises: the agent never stops because the collector is away or refuses;
//! it tries again with jittered waits from 1 s to 60 s. Everything that was
//! not acknowledged is sent again on the next stream. When the collector says
//! when to come back, that is obeyed, within bounds. What went wrong is in
//! the log and in the status, with what to look at.
//! Never: decides on the text of an error.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use procwarden_common::backoff::{self, Backoff};
use procwarden_common::id::BootId;
use procwarden_common::policy::Policy;
use procwarden_proto::v1;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::address::Address;
use crate::clock;
use crate::health::{Board, Part};
use crate::hits::SharedHits;
use crate::identity::{Facts, Validity};
use crate::policy::PolicyStore;
use crate::progress::Loop;
use crate::run::scanning::Waker;
use crate::spool::SharedSpool;
use crate::status::StatusFile;
use crate::tls::LiveCertificate;

mod advice;
mod renew;
mod session;
#[cfg(test)]
mod tests;
mod window;

const BACKOFF_MIN_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 60_000;

/// A stream that stood this long was a good one: the next wait is short.
const GOOD_STREAM: Duration = Duration::from_secs(30);

/// Whatever the uplink does has timeouts well below this: who takes longer
/// hangs.
const STEP_MAX: Duration = Duration::from_secs(300);

/// The same failure is told again in the log after this many attempts.
const REPEAT_EVERY: u32 = 15;

/// What the log and the status say of a collector that wants to be left alone.
const ASKED: &str = "the collector asked this host to come back later";

/// Everything a stream needs.
pub(crate) struct Uplink {
    pub(crate) state_dir: PathBuf,
    pub(crate) boot_id: BootId,
    pub(crate) facts: Facts,
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) certificate: Arc<LiveCertificate>,
    pub(crate) validity: Mutex<Validity>,
    /// The fleet's port; another one ends the stream.
    pub(crate) address: watch::Receiver<Address>,
    pub(crate) spool: SharedSpool,
    pub(crate) policies: Arc<Mutex<PolicyStore>>,
    /// The policy that judges.
    pub(crate) policy: watch::Sender<Arc<Policy>>,
    pub(crate) scanner: Waker,
    pub(crate) hits: SharedHits,
    pub(crate) board: Arc<Board>,
    pub(crate) status: Arc<StatusFile>,
}

/// Why a stream is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The agent stops.
    Stopped,
    /// The address changed: connect there at once.
    Moved,
    /// It could not be made, or broke.
    Broken(String),
    /// The collector is full, busy or about to stop and said when to come back.
    Asked(v1::RetryAfter),
}

impl Uplink {
    /// Keeps a stream until `shutdown` is true and what waits is sent.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let uplink = Arc::new(self);
        let mut backoff = Backoff::new(BACKOFF_MIN_MS, BACKOFF_MAX_MS);
        let mut last_error = String::new();
        while !*shutdown.borrow() {
            uplink.note_expiry();
            uplink.goes_on(Duration::ZERO);
            let began = Instant::now();
            let end = session::run(&uplink, &mut shutdown).await;
            let was_connected = uplink.disconnected(&end);
            match end {
                End::Stopped => break,
                End::Moved => backoff.reset(),
                End::Asked(wish) => {
                    let wait = backoff::asked(wish.after_ms, wish.spread_ms, jitter());
                    let is_news = last_error != ASKED;
                    uplink.say(ASKED, wait, is_news);
                    ASKED.clone_into(&mut last_error);
                    wait_or_stop(wait, &mut shutdown).await;
                }
                End::Broken(error) => {
                    if was_connected && began.elapsed() >= GOOD_STREAM {
                        backoff.reset();
                    }
                    let wait = backoff.next(jitter());
                    let is_news =
                        error != last_error || backoff.attempt.is_multiple_of(REPEAT_EVERY);
                    uplink.say(&error, wait, is_news);
                    last_error = error;
                    uplink.goes_on(wait);
                    wait_or_stop(wait, &mut shutdown).await;
                }
            }
        }
    }

    /// Tells the watchdog that more will be heard after this wait.
    fn goes_on(&self, wait: Duration) {
        let now = std::time::Instant::now();
        (self.board.progress).works(Loop::Uplink, now, wait + STEP_MAX);
    }

    fn say(&self, error: &str, wait: Duration, is_news: bool) {
        let (collector, retry_ms) = (self.address.borrow().to_string(), wait.as_millis());
        let advice = advice::of(error);
        if is_news {
            tracing::warn!(
                collector,
                error,
                advice,
                retry_ms,
                "The collector cannot be reached; findings are kept until it can."
            );
        } else {
            tracing::debug!(
                collector,
                error,
                retry_ms,
                "The collector still cannot be reached."
            );
        }
    }

    /// Puts the end of a stream on the board; whether there was one.
    fn disconnected(&self, end: &End) -> bool {
        let mut was_connected = false;
        self.board.update(|health| {
            was_connected = health.link.connected_since.take().is_some();
            match end {
                End::Broken(error) => health.link.last_error = Some(error.clone()),
                End::Asked(_) => health.link.last_error = Some(ASKED.to_owned()),
                End::Stopped | End::Moved => {}
            }
        });
        self.status.write(&self.board);
        was_connected
    }

    fn connected(&self) {
        let (now, collector) = (clock::now(), self.address.borrow().to_string());
        self.board.update(|health| {
            health.link.connected_since = Some(now);
            health.link.last_error = None;
        });
        self.status.write(&self.board);
        tracing::info!(collector, "The collector is connected.");
    }

    /// An expired certificate is said here, because the collector's refusal
    /// comes late and says little.
    fn note_expiry(&self) {
        let not_after = self.validity().not_after;
        let notes = if clock::now() > not_after {
            vec![format!(
                "the certificate of this host expired at {not_after}: enrol it again with a new token \
                 and --force (or correct the clock)"
            )]
        } else {
            Vec::new()
        };
        self.board.set_notes(Part::Certificate, notes);
    }

    fn validity(&self) -> Validity {
        *self
            .validity
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Returns when the agent has to stop.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the agent.
    if shutdown.wait_for(|&stop| stop).await.is_err() {
        tracing::debug!("The stop signal's sender is gone.");
    }
}

async fn wait_or_stop(wait: Duration, shutdown: &mut watch::Receiver<bool>) {
    tokio::select! {
        () = sleep(wait) => {}
        () = stopped(shutdown) => {}
    }
}

/// A random number in 0..1.
fn jitter() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}
