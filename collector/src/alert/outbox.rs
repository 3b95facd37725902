//! The outbox: sends what the ledger holds unsent, and says in the ledger that
//! it is sent. The edge around [`Retries`], [`render`](super::render) and
//! [`super::mailer`].
//!
//! Promises: an alert is marked as sent only after the transport took its mail
//! for every recipient; an alert that can not be sent holds up no other; a
//! reloaded configuration is used for the next attempt.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use procwarden_common::clock::UnixMillis;
use procwarden_proto::v1;
use procwarden_proto::v1::ledger_record::Entry;
use tokio::sync::watch;

use super::mailer::{self, Mail, SendError};
use super::retry::{Id, Lasting, Next, Retries};
use super::{ACTOR, AlertContext, stopped};
use crate::clock;
use crate::config::MailConfig;
use crate::ledger::Ledger;
use crate::ledger::state::AlertRecord;

mod load;

/// How often the configuration is compared while an alert waits.
const CONFIG_CHECK: Duration = Duration::from_secs(2);

/// Time that a mail in flight gets when the process is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Of the failures of one alert, the first and every such one are logged.
const LOG_EVERY: u32 = 10;

/// Handle on the outbox; cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    ledger: Ledger,
    retries: Arc<Mutex<Retries>>,
}

/// Where the outbox stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutboxStatus {
    /// Alerts that are queued and not sent.
    pub(crate) waiting: u64,
    /// Why the newest failed attempt failed, while its alert still waits.
    pub(crate) last_error: Option<String>,
    /// Failed attempts, and the last error, of the alerts that had any.
    failures: BTreeMap<Id, (u32, String)>,
}

impl OutboxStatus {
    /// Failed attempts to send this alert since the process began.
    pub(crate) fn attempts(&self, id: &[u8; 16]) -> u32 {
        self.failures.get(id).map_or(0, |(failures, _)| *failures)
    }

    /// Why the last attempt to send this alert failed.
    pub(crate) fn error_of(&self, id: &[u8; 16]) -> Option<&str> {
        self.failures
            .get(id)
            .map(|(_, error)| error.as_str())
            .filter(|error| !error.is_empty())
    }
}

impl Outbox {
    pub(super) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            retries: Arc::default(),
        }
    }

    /// Where the outbox stands now.
    pub(crate) fn status(&self) -> OutboxStatus {
        let unsent = |alert: &&AlertRecord| alert.sent_at.is_none();
        let waiting = self
            .ledger
            .read(|state| state.alerts.alerts.values().filter(unsent).count());
        let retries = self.retries();
        OutboxStatus {
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
            // The ledger knows first that nothing waits any more.
            last_error: retries
                .last_error()
                .filter(|_| waiting > 0)
                .map(str::to_owned),
            failures: retries.failures(),
        }
    }

    fn retries(&self) -> MutexGuard<'_, Retries> {
        // Every change is complete in itself: a panic elsewhere left no half.
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs until `shutdown`, or until the ledger is closed.
pub(super) async fn run(
    context: AlertContext,
    outbox: Outbox,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut sender = Sender {
        mail_config: mail_config(&context),
        context,
        outbox,
        first_unsent: 0,
    };
    let mut changes = sender.context.ledger.changes();
    while !*shutdown.borrow() {
        sender.notice_new_config();
        changes.mark_unchanged();
        match sender.next(clock::now()) {
            Next::Try(id) => {
                let ledger_goes_on = tokio::select! {
                    goes_on = sender.attempt(id) => goes_on,
                    () = drained(&mut shutdown) => {
                        tracing::warn!("A mail was cut off by the shutdown; it is sent again.");
                        false
                    }
                };
                if !ledger_goes_on {
                    return;
                }
            }
            Next::WaitUntil(at) => {
                let wait = Duration::from_millis(at.millis_since(clock::now()));
                tokio::select! {
                    () = stopped(&mut shutdown) => return,
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(wait.min(CONFIG_CHECK)) => {}
                }
            }
            Next::Idle => tokio::select! {
                () = stopped(&mut shutdown) => return,
                changed = changes.changed() => if changed.is_err() { return },
            },
        }
    }
}

/// Resolves when a mail in flight had its time after a shutdown began.
async fn drained(shutdown: &mut watch::Receiver<bool>) {
    stopped(shutdown).await;
    tokio::time::sleep(DRAIN_TIMEOUT).await;
}

fn mail_config(context: &AlertContext) -> Option<MailConfig> {
    context.config.load().mail.clone()
}

struct Sender {
    context: AlertContext,
    outbox: Outbox,
    mail_config: Option<MailConfig>,
    /// Alerts with a smaller number are sent: a long history costs nothing.
    first_unsent: u64,
}

impl Sender {
    fn notice_new_config(&mut self) {
        let newest = mail_config(&self.context);
        if newest != self.mail_config {
            self.mail_config = newest;
            self.outbox.retries().retry_now();
        }
    }

    fn next(&mut self, now: UnixMillis) -> Next {
        let retries = self.outbox.retries();
        let first_unsent = self.first_unsent;
        let (next, oldest) = self.context.ledger.read(|state| {
            let unsent = || {
                let alerts = state.alerts.alerts.range(first_unsent..);
                alerts.filter(|(_, alert)| alert.sent_at.is_none())
            };
            (
                retries.next(unsent().map(|(_, alert)| alert), now),
                unsent().next().map(|(n, _)| *n),
            )
        });
        if let Some(oldest) = oldest {
            self.first_unsent = oldest;
        }
        next
    }

    /// Tries one alert. False when the ledger takes nothing any more.
    async fn attempt(&self, id: Id) -> bool {
        let first_unsent = self.first_unsent;
        let alert = self.context.ledger.read(|state| {
            let mut alerts = state.alerts.alerts.range(first_unsent..);
            alerts
                .find(|(_, alert)| alert.id == id)
                .map(|(_, alert)| alert.clone())
        });
        let Some(alert) = alert else { return true };
        match self.deliver(&alert).await {
            Ok(answer) => self.mark_sent(&alert, &answer).await,
            Err((error, lasting)) => {
                self.note_failure(&alert, error, lasting);
                true
            }
        }
    }

    async fn deliver(&self, alert: &AlertRecord) -> Result<String, (String, Lasting)> {
        let config = self.mail_config.as_ref().ok_or_else(|| {
            let words = "no [mail] is configured: add one to the configuration and reload it";
            (words.to_owned(), Lasting::No)
        })?;
        let mail = load::mail(&self.context, alert)
            .await
            .map_err(|error| (error, Lasting::No))?;
        let recipients = self.outbox.retries().lacking(&alert.id, &alert.to);
        match mailer::send(config, &mail, &recipients).await {
            Err(error) if error.refused && recipients.len() > 1 => {
                self.deliver_one_by_one(config, alert, &mail, &recipients)
                    .await
            }
            result => result,
        }
        .map_err(|error| (error.to_string(), error.lasting))
    }

    /// One bad recipient must not keep the mail from the others.
    async fn deliver_one_by_one(
        &self,
        config: &MailConfig,
        alert: &AlertRecord,
        mail: &Mail,
        recipients: &[String],
    ) -> Result<String, SendError> {
        let mut result = Ok(String::new());
        for to in recipients {
            match mailer::send(config, mail, std::slice::from_ref(to)).await {
                Ok(answer) => {
                    self.outbox.retries().delivered(alert.id, to);
                    result = result.map(|_| answer);
                }
                // Without an answer the others would only wait in vain.
                Err(error) if !error.refused => return Err(error),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    async fn mark_sent(&self, alert: &AlertRecord, answer: &str) -> bool {
        let entry = Entry::AlertSent(v1::AlertSent {
            id: alert.id.to_vec().into(),
        });
        let commit = self
            .context
            .ledger
            .commit(clock::now(), ACTOR, |_| Ok::<_, Infallible>(entry));
        if let Err(error) = commit.await {
            tracing::error!(error = %error, "A mail is out, but the ledger failed to note it.");
            return false;
        }
        self.outbox.retries().sent(&alert.id);
        tracing::info!(alert = %name(&alert.id), answer, "An alert was sent.");
        true
    }

    fn note_failure(&self, alert: &AlertRecord, error: String, lasting: Lasting) {
        let mut jitter = [0];
        // Without randomness the waits are merely the same for all.
        getrandom::fill(&mut jitter).unwrap_or_default();
        let [jitter] = jitter.map(|byte| f64::from(byte) / 256.0);
        let words = error.clone();
        let failures = self
            .outbox
            .retries()
            .failed(alert.id, clock::now(), lasting, jitter, error);
        if failures == 1 || failures.is_multiple_of(LOG_EVERY) {
            let next = match lasting {
                Lasting::Yes => "The server refuses an alert mail; it is tried again hourly.",
                Lasting::No => "An alert mail could not be sent; it is tried again.",
            };
            tracing::warn!(alert = %name(&alert.id), failures, error = %words, "{next}");
        }
    }
}

fn name(id: &Id) -> String {
    data_encoding::HEXLOWER.encode(id)
}
