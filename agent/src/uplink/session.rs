//! One stream: hello, then batches and heartbeats up; acks, policies and scan
//! requests down, until it breaks or the agent stops.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use procwarden_common::clock::UnixMillis;
use procwarden_common::limits::MESSAGE_BYTES_MAX;
use procwarden_common::wire::HEARTBEAT_INTERVAL;
use procwarden_proto::v1;
use procwarden_proto::v1::connect_request::Message as Up;
use procwarden_proto::v1::connect_response::Message as Down;
use procwarden_proto::v1::fleet_service_client::FleetServiceClient;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::window::Window;
use super::{End, Uplink, advice, renew, stopped};
use crate::health::Part;
use crate::hits::Told;
use crate::policy::Pushed;
use crate::run::scanning::Wake;
use crate::{clock, errors, host, tls};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long what was said on a closed stream may take to be read.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a stopping agent waits for what is on its way.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages up that wait for the connection: the window and some heartbeats.
const OUTBOUND_MAX: usize = 8;

/// A stream that stands.
struct Session<'u> {
    uplink: &'u Arc<Uplink>,
    channel: Channel,
    up: mpsc::Sender<v1::ConnectRequest>,
    down: Streaming<v1::ConnectResponse>,
    window: Window,
    heartbeat: Interval,
    /// What this stream said of the rules' hits.
    hits_told: Told,
    renewal: Option<JoinHandle<Result<UnixMillis, String>>>,
    renewal_check: Instant,
    /// Set once the agent stops.
    drain_until: Option<Instant>,
}

/// Connects and keeps the stream until it ends.
pub(super) async fn run(uplink: &Arc<Uplink>, shutdown: &mut watch::Receiver<bool>) -> End {
    let opened = tokio::select! {
        opened = open(uplink) => opened,
        () = stopped(shutdown) => return End::Stopped,
    };
    match opened {
        Ok(session) => {
            uplink.connected();
            session.keep(shutdown).await
        }
        Err(error) => End::Broken(error),
    }
}

async fn open(uplink: &Arc<Uplink>) -> Result<Session<'_>, String> {
    let address = uplink.address.borrow().clone();
    let channel = tls::connect(&address, Arc::clone(&uplink.tls))
        .await
        .map_err(|error| errors::chain(&error))?;
    let (up, outbound) = mpsc::channel(OUTBOUND_MAX);
    up.try_send(v1::ConnectRequest {
        message: Some(Up::Hello(hello(uplink))),
    })
    .map_err(|error| error.to_string())?;
    let mut client = FleetServiceClient::new(channel.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let down = timeout(
        ANSWER_TIMEOUT,
        client.connect(ReceiverStream::new(outbound)),
    )
    .await
    .map_err(|_| "the collector did not answer within 30 s".to_owned())?
    .map_err(|status| not_opened(&status))?
    .into_inner();
    let mut heartbeat = interval(HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Session {
        uplink,
        channel,
        up,
        down,
        window: Window::default(),
        heartbeat,
        hits_told: Told::default(),
        renewal: None,
        renewal_check: Instant::now(),
        drain_until: None,
    })
}

/// Why no stream was opened: the collector's own words, or a connection that
/// ended, as it does when a certificate is refused.
fn not_opened(status: &Status) -> String {
    let reason = errors::chain(status);
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
            format!("the collector refused this host: {reason}")
        }
        _ => format!("the stream ended {}: {reason}", advice::BEFORE_ANSWER),
    }
}

fn hello(uplink: &Uplink) -> v1::Hello {
    v1::Hello {
        host_name: host::name(),
        boot_id: Bytes::copy_from_slice(uplink.boot_id.as_bytes()),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: host::kernel(),
        policy: Some(uplink.policy_state()),
    }
}

impl Session<'_> {
    async fn keep(mut self, shutdown: &mut watch::Receiver<bool>) -> End {
        let mut address = self.uplink.address.clone();
        address.mark_unchanged();
        loop {
            self.uplink.goes_on(Duration::ZERO);
            if let Err(end) = self.fill_window().await {
                return end;
            }
            if self.is_drained() {
                return End::Stopped;
            }
            // With nothing to wait for, the timer lies in the far future.
            let far = Instant::now() + Duration::from_secs(86_400);
            let ack_deadline = self.window.deadline().unwrap_or(far);
            let drain_deadline = self.drain_until.unwrap_or(far);
            let step = tokio::select! {
                message = self.down.message() => self.received(message).await,
                () = self.uplink.spool.grown() => Ok(()),
                _ = self.heartbeat.tick() => {
                    self.beat();
                    Ok(())
                }
                () = sleep_until(self.renewal_check), if self.renewal.is_none() => self.check_renewal(),
                done = finished(&mut self.renewal) => self.renewed(done),
                () = sleep_until(ack_deadline) => Err(End::Broken("no ack within 120 s: does the collector hang?".to_owned())),
                () = sleep_until(drain_deadline) => Err(End::Stopped),
                Ok(()) = address.changed() => Err(End::Moved),
                () = stopped(shutdown), if self.drain_until.is_none() => {
                    self.drain_until = Some(Instant::now() + DRAIN_TIMEOUT);
                    self.beat();
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Sends batches while the window has room and the connection takes them:
    /// waiting for the connection here would keep acks from being read.
    async fn fill_window(&mut self) -> Result<(), End> {
        while self.window.has_room() {
            let Ok(permit) = self.up.try_reserve() else {
                return self.closed().await;
            };
            let events = self.uplink.spool.read_batch(self.window.sent()).await;
            let Some(last) = events.last().map(|event| event.sequence) else {
                return Ok(());
            };
            permit.send(v1::ConnectRequest {
                message: Some(Up::Batch(v1::Batch { events })),
            });
            self.window.send(last, Instant::now());
        }
        Ok(())
    }

    /// How the stream ended, once it takes nothing any more. What the
    /// collector said before is still read: acks, or when to come back.
    async fn closed(&mut self) -> Result<(), End> {
        if !self.up.is_closed() {
            return Ok(());
        }
        let last_words = async {
            loop {
                let message = self.down.message().await;
                self.received(message).await?;
            }
        };
        timeout(LAST_WORDS_TIMEOUT, last_words)
            .await
            .unwrap_or_else(|_| {
                Err(End::Broken(
                    "the stream to the collector is closed".to_owned(),
                ))
            })
    }

    fn is_drained(&self) -> bool {
        self.drain_until.is_some() && self.window.is_empty() && self.uplink.spool.waiting() == 0
    }

    async fn received(
        &mut self,
        message: Result<Option<v1::ConnectResponse>, Status>,
    ) -> Result<(), End> {
        let message = match message {
            Ok(Some(message)) => message.message,
            Ok(None) => return Err(End::Broken("the collector closed the stream".to_owned())),
            Err(status) => return Err(End::Broken(errors::chain(&status))),
        };
        match message {
            Some(Down::Ack(ack)) => self.acked(ack.sequence).await,
            Some(Down::Policy(policy)) => self.pushed(policy).await,
            Some(Down::ScanNow(_)) => {
                self.uplink.scanner.wake(Wake::ScanNow);
                Ok(())
            }
            Some(Down::RetryAfter(wish)) => Err(End::Asked(wish)),
            // A newer collector may say what this agent does not know.
            None => Ok(()),
        }
    }

    async fn acked(&mut self, sequence: u64) -> Result<(), End> {
        if !self.window.ack(sequence) {
            return Err(End::Broken(format!(
                "the collector acknowledged event {sequence}, which was not sent"
            )));
        }
        self.uplink.spool.ack(sequence).await;
        Ok(())
    }

    async fn pushed(&mut self, message: v1::EffectivePolicy) -> Result<(), End> {
        let policies = Arc::clone(&self.uplink.policies);
        // Compiling patterns takes its time.
        let checked = spawn_blocking(move || {
            policies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(message)
        });
        match checked.await {
            Ok(Pushed::Applied(policy)) => {
                tracing::info!(
                    rules = policy.rules().len(),
                    "A policy from the collector is applied."
                );
                self.uplink.board.set_notes(Part::Policy, Vec::new());
                self.uplink.policy.send_replace(policy);
                self.uplink.scanner.wake(Wake::PaceChanged);
            }
            Ok(Pushed::Unchanged) => self.uplink.board.set_notes(Part::Policy, Vec::new()),
            Ok(Pushed::Refused(reason)) => {
                tracing::error!(
                    reason,
                    "A policy from the collector is refused; the last good one stays."
                );
            }
            Err(error) => {
                tracing::error!(%error, "A policy from the collector could not be checked.");
            }
        }
        let state = self.uplink.policy_state();
        self.uplink.board.update(|health| health.policy = state);
        self.uplink.status.write(&self.uplink.board);
        self.beat();
        Ok(())
    }

    /// A heartbeat that finds no room is left out: the next one says more.
    fn beat(&mut self) {
        self.heartbeat.reset();
        let Ok(permit) = self.up.try_reserve() else {
            return;
        };
        let mut hits = self.uplink.hits.news(&self.hits_told);
        let heartbeat = v1::Heartbeat {
            sent_at_ms: clock::now().0,
            policy: Some(self.uplink.policy_state()),
            health: Some(self.uplink.board.snapshot().message()),
            rule_hits: std::mem::take(&mut hits.rule_hits),
            rule_hits_anew: hits.anew,
        };
        permit.send(v1::ConnectRequest {
            message: Some(Up::Heartbeat(heartbeat)),
        });
        self.hits_told = hits.sent();
    }

    fn check_renewal(&mut self) -> Result<(), End> {
        match renew::wait(&self.uplink.validity(), clock::now()) {
            Some(wait) => self.renewal_check = Instant::now() + wait,
            None => {
                let (uplink, channel) = (Arc::clone(self.uplink), self.channel.clone());
                self.renewal = Some(tokio::spawn(
                    async move { renew::renew(&uplink, channel).await },
                ));
            }
        }
        Ok(())
    }

    fn renewed(&mut self, done: Result<UnixMillis, String>) -> Result<(), End> {
        self.renewal = None;
        let wait = match done {
            Ok(not_after) => {
                tracing::info!(%not_after, "The certificate of this host was renewed.");
                renew::wait(&self.uplink.validity(), clock::now())
                    .unwrap_or(Duration::from_secs(60))
            }
            Err(error) => {
                let validity = self.uplink.validity();
                let wait = renew::retry(&validity, clock::now());
                tracing::error!(error, not_after = %validity.not_after, retry_s = wait.as_secs(), "The certificate of this host could not be renewed.");
                wait
            }
        };
        self.renewal_check = Instant::now() + wait;
        Ok(())
    }
}

impl Drop for Session<'_> {
    /// The renewal uses this stream's connection: it ends with it.
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

impl Uplink {
    fn policy_state(&self) -> v1::PolicyState {
        self.policies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .state()
    }
}

/// The result of a renewal; never, when none runs.
async fn finished<T>(task: &mut Option<JoinHandle<Result<T, String>>>) -> Result<T, String> {
    match task {
        Some(task) => task.await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}
