//! Simulated agents that outlive their collector: each keeps what is not
//! acknowledged and sends it again on the next stream, as a real spool does.
//!
//! Promises: an event counts as acknowledged only when its acknowledgement
//! was received. Events are never taken back or renumbered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use procwarden_common::token::Token;
use procwarden_proto::v1;
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use v1::connect_response::Message;

use super::truth::{self, Range, Told};
use crate::load::{connect, findings};

/// Events of a batch, at most.
const BATCH_MAX: u64 = 16;

/// Events without an acknowledgement behind which an agent tells nothing new:
/// one that is slow has to catch up.
const UNACKED_MAX: u64 = 1000;

/// Pause between two batches, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 1..=8;

/// Pause after a stream broke.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// How far one agent is.
#[derive(Debug, Default)]
struct Progress {
    /// Last event that left, on any stream.
    sent: u64,
    /// Last event whose acknowledgement came.
    acked: u64,
    /// When events left for the first time: (first sequence, Unix ms).
    departures: Vec<(u64, i64)>,
}

struct Agent {
    number: usize,
    host: connect::Host,
    progress: Mutex<Progress>,
}

/// All agents of a history. They end when this is dropped.
pub(super) struct Agents {
    all: Vec<Arc<Agent>>,
    tasks: Vec<JoinHandle<()>>,
    /// Port of the fleet listener; 0 while there is none.
    port: watch::Sender<u16>,
    /// Nothing new is to be told.
    quiet: Arc<AtomicBool>,
}

/// Where every agent stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    pub(super) sent: Vec<u64>,
    pub(super) acked: Vec<u64>,
    /// When the oldest event that is not acknowledged left first, Unix ms.
    pub(super) oldest_unacked_ms: i64,
}

impl Standing {
    pub(super) fn sent_in_all(&self) -> u64 {
        self.sent.iter().sum()
    }

    pub(super) fn acked_in_all(&self) -> u64 {
        self.acked.iter().sum()
    }

    /// What has to be there, from an earlier standing on.
    pub(super) fn ranges_since(&self, earlier: &Standing) -> Vec<Range> {
        let range = |(agent, &acked): (usize, &u64)| Range {
            agent,
            from: truth::group_begin(earlier.acked.get(agent).copied().unwrap_or(0)),
            acked,
        };
        self.acked.iter().enumerate().map(range).collect()
    }
}

impl Agents {
    /// Enrols `count` agents; none connects before there is a port.
    ///
    /// # Errors
    /// When enrolment fails.
    pub(super) async fn enroll(
        token: &Token,
        ca: &CertificateDer<'static>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let (port, ports) = watch::channel(0);
        let quiet = Arc::new(AtomicBool::new(false));
        let (mut all, mut tasks) = (Vec::new(), Vec::new());
        for number in 0..count {
            let agent = Arc::new(Agent {
                number,
                host: connect::enroll(token, ca, number).await?,
                progress: Mutex::default(),
            });
            all.push(Arc::clone(&agent));
            tasks.push(Handle::current().spawn(agent.run(ports.clone(), Arc::clone(&quiet))));
        }
        Ok(Self {
            all,
            tasks,
            port,
            quiet,
        })
    }

    /// The collector listens here from now on; 0 says that it is away.
    pub(super) fn reach(&self, port: u16) {
        self.port.send_replace(port);
    }

    /// Whether agents tell anything new.
    pub(super) fn be_quiet(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    pub(super) fn standing(&self) -> Standing {
        let mut standing = Standing {
            oldest_unacked_ms: now_ms(),
            ..Standing::default()
        };
        for agent in &self.all {
            let progress = agent.progress();
            standing.sent.push(progress.sent);
            standing.acked.push(progress.acked);
            let next = truth::group_begin(progress.acked);
            let left = progress.departures.iter().rev().find(|(s, _)| *s <= next);
            if let Some((_, ms)) = left {
                standing.oldest_unacked_ms = standing.oldest_unacked_ms.min(*ms);
            }
        }
        standing
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Agent {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One stream after the other, for ever.
    async fn run(self: Arc<Self>, mut ports: watch::Receiver<u16>, quiet: Arc<AtomicBool>) {
        loop {
            let Ok(port) = ports.wait_for(|port| *port != 0).await.map(|port| *port) else {
                return;
            };
            // A broken stream is what this is all about: the next one follows.
            drop(self.talk(port, &quiet).await);
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn talk(&self, port: u16, quiet: &AtomicBool) -> anyhow::Result<()> {
        let mut client = connect::fleet_client(&self.host.on_port(port)?).await?;
        let (outgoing, receiver) = mpsc::channel(4);
        outgoing.send(findings::hello(self.number)).await?;
        let answers = client.connect(ReceiverStream::new(receiver)).await?;
        let mut answers = answers.into_inner();
        let mut next = self.progress().acked + 1;
        loop {
            let pause = Duration::from_millis(fastrand::u64(PAUSE_MS));
            tokio::select! {
                answer = answers.next() => {
                    let answer = answer.context("the collector ended the stream")??;
                    if let Some(Message::Ack(ack)) = answer.message {
                        self.acknowledged(ack.sequence)?;
                    }
                }
                () = tokio::time::sleep(pause) => {
                    let Some((batch, behind)) = self.batch(next, quiet.load(Ordering::Relaxed)) else {
                        continue;
                    };
                    outgoing.send(batch).await?;
                    next = behind;
                }
            }
        }
    }

    /// The batch that begins with `next`, and the number behind it.
    fn batch(&self, next: u64, quiet: bool) -> Option<(v1::ConnectRequest, u64)> {
        let mut progress = self.progress();
        let mut behind = next + fastrand::u64(1..=BATCH_MAX);
        if quiet || progress.sent >= progress.acked + UNACKED_MAX {
            behind = behind.min(progress.sent + 1);
        }
        if behind <= next {
            return None;
        }
        if behind - 1 > progress.sent {
            let first = progress.sent + 1;
            progress.sent = behind - 1;
            progress.departures.push((first, now_ms()));
        }
        let event = |sequence| match truth::told(sequence) {
            Told::Reported(process) => {
                findings::reported(sequence, &findings::finding(self.number, process))
            }
            Told::Grown(process) => findings::reported(
                sequence,
                &findings::grown(findings::finding(self.number, process)),
            ),
            Told::Ended(process) => findings::ended(sequence, self.number, process),
        };
        let events = (next..behind).map(event).collect();
        Some((findings::of_events(events), behind))
    }

    fn acknowledged(&self, sequence: u64) -> anyhow::Result<()> {
        let mut progress = self.progress();
        if sequence > progress.sent {
            bail!("event {sequence} was acknowledged before it was sent");
        }
        progress.acked = progress.acked.max(sequence);
        let keep = truth::group_begin(progress.acked);
        let old = progress.departures.partition_point(|(s, _)| *s <= keep);
        progress.departures.drain(..old.saturating_sub(1));
        Ok(())
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| {
        i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
    })
}
