//! Connected hosts that behave as agents do: heartbeats, policies applied at
//! once, and coming back with jittered waits when a stream ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use procwarden_common::backoff::Backoff;
use procwarden_common::policy::EffectivePolicy;
use procwarden_common::wire::{HEARTBEAT_INTERVAL, policy_hash};
use procwarden_proto::v1;
use procwarden_proto::v1::connect_response::Message;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep, timeout};

use super::drive::{opened, requests_of};
use super::host::Host;
use super::requests::{Requests, heartbeat};
use super::stream::Stream;

const BACKOFF_MIN_MS: u64 = 1_000;
const BACKOFF_MAX_MS: u64 = 60_000;

/// What hosts say that nobody has listened to yet.
const HEARD_MAX: usize = 4_096;

/// What happened to a host, and when.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) number: usize,
    pub(super) at: Instant,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Its call was answered.
    Connected,
    /// It runs the policy with this hash and has told so.
    Applied([u8; 32]),
    /// A stream could not be made, or ended.
    Failed(String),
}

/// The hosts; they end when this is dropped.
pub(super) struct Crowd {
    heard: mpsc::Receiver<Heard>,
    /// A new value: everybody drops the connection and comes back at once.
    cut: watch::Sender<u64>,
    turns: Arc<Semaphore>,
    size: usize,
    _tasks: JoinSet<()>,
}

/// What all hosts share.
struct Shared {
    tell: mpsc::Sender<Heard>,
    turns: Arc<Semaphore>,
    applied: Mutex<Option<Arc<Applied>>>,
}

/// A policy that was worked out for one host and is the same for others.
struct Applied {
    message: v1::EffectivePolicy,
    hash: [u8; 32],
    heartbeat: Bytes,
}

impl Crowd {
    /// Begins to connect all hosts, so many at a time.
    pub(super) fn connect(hosts: &[Arc<Host>], at_once: usize) -> Self {
        let (tell, heard) = mpsc::channel(HEARD_MAX);
        let (cut, cut_seen) = watch::channel(0);
        let turns = Arc::new(Semaphore::new(at_once));
        let shared = Arc::new(Shared {
            tell,
            turns: Arc::clone(&turns),
            applied: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for (host, requests) in hosts.iter().zip(requests_of(hosts)) {
            let (host, shared, cut) = (Arc::clone(host), Arc::clone(&shared), cut_seen.clone());
            tasks.spawn(live(host, requests, shared, cut));
        }
        Self {
            heard,
            cut,
            turns,
            size: hosts.len(),
            _tasks: tasks,
        }
    }

    /// From now on so many more may connect at the same time.
    pub(super) fn lift_turns(&self, by: usize) {
        self.turns.add_permits(by);
    }

    /// Breaks every connection at the same moment.
    pub(super) fn cut(&self) {
        self.cut.send_modify(|round| *round += 1);
    }

    /// Listens until every host did something once; returns when each did for
    /// the first time, and how many attempts failed meanwhile.
    pub(super) async fn all(
        &mut self,
        what: &str,
        fits: impl Fn(&What) -> bool,
    ) -> anyhow::Result<(Vec<Instant>, Vec<String>)> {
        let mut seen: Vec<Option<Instant>> = vec![None; self.size];
        let (mut missing, mut failures) = (self.size, Vec::new());
        let listening = async {
            while missing > 0 {
                let heard = self.heard.recv().await.context("all hosts are gone")?;
                if let What::Failed(why) = &heard.what {
                    failures.push(why.clone());
                }
                if fits(&heard.what)
                    && let Some(place) = seen.get_mut(heard.number)
                    && place.replace(place.unwrap_or(heard.at)).is_none()
                {
                    missing -= 1;
                }
            }
            anyhow::Ok(())
        };
        let listened = timeout(super::STEP_MAX, listening).await;
        if listened.is_err() {
            let last = failures.last().map_or("", String::as_str);
            bail!("{missing} hosts are not {what}; the last failure: {last}");
        }
        listened??;
        Ok((seen.into_iter().flatten().collect(), failures))
    }

    /// Lets the hosts be for a while; returns how many streams broke.
    pub(super) async fn idle(&mut self, during: Duration) -> usize {
        let mut failures = 0;
        let end = Instant::now() + during;
        while let Ok(Some(heard)) = tokio::time::timeout_at(end, self.heard.recv()).await {
            failures += usize::from(matches!(heard.what, What::Failed(_)));
        }
        failures
    }
}

/// One host, until its task is ended.
async fn live(
    host: Arc<Host>,
    requests: Requests,
    shared: Arc<Shared>,
    mut cut: watch::Receiver<u64>,
) {
    let mut backoff = Backoff::new(BACKOFF_MIN_MS, BACKOFF_MAX_MS);
    loop {
        cut.mark_unchanged();
        let opening = async {
            let _turn = shared.turns.acquire().await?;
            opened(&host, requests.hello()).await
        };
        let error = match opening.await {
            Ok(stream) => {
                backoff.reset();
                shared.tell(host.number, What::Connected).await;
                match keep(&host, stream, &shared, &mut cut).await {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let why = format!("host {}: {error:#}", host.number);
        shared.tell(host.number, What::Failed(why)).await;
        sleep(backoff.next(jitter())).await;
    }
}

/// Keeps a stream until it breaks, or until it is cut.
async fn keep(
    host: &Host,
    mut stream: Stream,
    shared: &Shared,
    cut: &mut watch::Receiver<u64>,
) -> anyhow::Result<()> {
    let mut beat = heartbeat(&[], Vec::new());
    let first = Instant::now() + HEARTBEAT_INTERVAL.mul_f64(jitter());
    let mut beats = interval_at(first, HEARTBEAT_INTERVAL);
    loop {
        tokio::select! {
            message = stream.next() => {
                let Message::Policy(policy) = message? else { continue };
                let applied = shared.apply(policy)?;
                beat = applied.heartbeat.clone();
                stream.send(beat.clone())?;
                shared.tell(host.number, What::Applied(applied.hash)).await;
            }
            _ = beats.tick() => stream.send(beat.clone())?,
            changed = cut.changed() => return Ok(changed?),
        }
    }
}

impl Shared {
    async fn tell(&self, number: usize, what: What) {
        let at = Instant::now();
        // Nobody listens any more when the run is over.
        drop(self.tell.send(Heard { number, at, what }).await);
    }

    /// What an agent does with a policy, once for all that get the same.
    fn apply(&self, message: v1::EffectivePolicy) -> anyhow::Result<Arc<Applied>> {
        let mut known = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(applied) = known.as_ref().filter(|known| known.message == message) {
            return Ok(Arc::clone(applied));
        }
        let policy = EffectivePolicy::try_from(message.clone())?;
        let names = policy.documents.iter().map(|document| v1::AppliedPolicy {
            name: document.name.clone(),
            revision: document.revision,
        });
        let hash = policy_hash(&policy);
        let applied = Arc::new(Applied {
            heartbeat: heartbeat(&hash, names.collect()),
            message,
            hash,
        });
        *known = Some(Arc::clone(&applied));
        Ok(applied)
    }
}

/// A random number in 0..1.
pub(super) fn jitter() -> f64 {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(random) / f64::from(u32::MAX)
}
