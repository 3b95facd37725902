//! Mode `push`: how long until every host runs a policy that was just
//! published, and what pushing it does to the collector's memory.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::fleet::{Crowd, What};
use super::target::Target;
use super::{Plan, hosts_of, machine};
use crate::usage::{Usage, rounded};

const AT_ONCE: usize = 64;
const SETTLE: Duration = Duration::from_secs(5);

/// Looks at the collector's memory while it pushes.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// How often the collector is asked at most who runs the policy.
const ASKED_MAX: u32 = 100;

/// What to publish.
#[derive(Debug, Clone, Copy)]
pub struct Push {
    /// Bytes of the policy.
    pub bytes: usize,
    /// Revisions, one behind the other.
    pub rounds: u32,
}

/// Connects all hosts, publishes, and prints when the last one ran it. The
/// time begins before the operator's command is started.
///
/// # Errors
/// When a host cannot connect, or the policy cannot be published.
pub async fn push(plan: &Plan, what: Push) -> anyhow::Result<Value> {
    let mut target = Target::collector(&plan.target, plan.agents)?;
    target.own_collector()?;
    let hosts = hosts_of(&target, plan.agents).await?;
    let mut crowd = Crowd::connect(&hosts, AT_ONCE);
    // A host that runs nothing is sent the empty policy.
    let applied = |what: &What| matches!(what, What::Applied(_));
    crowd.all("running the first policy", applied).await?;
    crowd.idle(SETTLE).await;
    let before = target
        .usage()?
        .context("the collector's process is known")?;
    let mut rounds = Vec::new();
    for round in 1..=what.rounds {
        rounds.push(publish(&mut target, &mut crowd, what.bytes, round).await?);
    }
    crowd.idle(SETTLE).await;
    let after = target
        .usage()?
        .context("the collector's process is known")?;
    Ok(json!({
        "mode": "push",
        "agents": plan.agents,
        "policy_bytes": what.bytes,
        "rounds": rounds,
        "rss_bytes_before": before.rss_bytes,
        "rss_bytes_after": after.rss_bytes,
        "server": after.since(&before),
        "machine": machine(),
    }))
}

async fn publish(
    target: &mut Target,
    crowd: &mut Crowd,
    bytes: usize,
    round: u32,
) -> anyhow::Result<Value> {
    let usage = target
        .usage()?
        .context("the collector's process is known")?;
    let collector = target.own_collector()?;
    let file = collector.data_dir().join("../load.pignore");
    std::fs::write(&file, rules(bytes, round))?;
    let watching = Watching::start(collector.process().pid());
    let collector: &crate::collector::Collector = collector;
    let begin = Instant::now();
    let setting = async { tokio::task::block_in_place(|| set(collector, &file)) };
    let hashes = std::sync::Mutex::new(None);
    let same = |what: &What| match what {
        What::Applied(hash) => {
            let mut first = hashes
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *first.get_or_insert(*hash) == *hash
        }
        What::Connected | What::Failed(_) => false,
    };
    let (published, applied) = tokio::join!(
        async {
            setting.await?;
            anyhow::Ok(begin.elapsed())
        },
        crowd.all("running the policy", same)
    );
    let (published, (times, failures)) = (published?, applied?);
    let last = times.iter().max().copied().unwrap_or(begin) - begin;
    let confirmed = confirmed(collector, begin).await?;
    let after = Usage::of(collector.process().pid())?;
    Ok(json!({
        "published_secs": rounded(published.as_secs_f64()),
        "applied_by_all_secs": rounded(last.as_secs_f64()),
        "confirmed_by_status_secs": rounded(confirmed.as_secs_f64()),
        "attempts_failed": failures.len(),
        "server_cpu_secs": rounded(after.cpu_secs - usage.cpu_secs),
        "rss_bytes_peak": watching.peak().await,
    }))
}

fn set(collector: &crate::collector::Collector, file: &Path) -> anyhow::Result<()> {
    let file = file.display().to_string();
    let output = collector.operator(&["policy", "set", "default", &file, "--comment", "load"]);
    ensure!(
        output.status.success(),
        "the policy was not published: {}",
        crate::collector::text(&output.stderr)
    );
    Ok(())
}

/// When the collector itself says that every host runs it.
async fn confirmed(
    collector: &crate::collector::Collector,
    begin: Instant,
) -> anyhow::Result<Duration> {
    for _ in 0..ASKED_MAX {
        let asked = || collector.operator(&["policy", "status", "default"]);
        if tokio::task::block_in_place(asked).status.success() {
            return Ok(begin.elapsed());
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the collector never said that all hosts run the policy")
}

/// A whitelist of this size as fleets have it.
fn rules(bytes: usize, round: u32) -> String {
    let mut text = format!("# revision {round} of the load\n");
    let mut number = 0;
    while text.len() < bytes {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "exe:/opt/application-{number:05}/bin/worker").is_ok();
        number += 1;
    }
    text
}

/// Looks at the memory of a process again and again.
struct Watching {
    stop: watch::Sender<bool>,
    peak: JoinHandle<u64>,
}

impl Watching {
    fn start(pid: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let peak = tokio::spawn(async move {
            let mut peak = 0;
            while !*stopped.borrow() {
                peak = peak.max(Usage::of(pid).map_or(0, |usage| usage.rss_bytes));
                sleep(SAMPLE_INTERVAL).await;
            }
            peak
        });
        Self { stop, peak }
    }

    async fn peak(self) -> u64 {
        self.stop.send_replace(true);
        self.peak.await.unwrap_or(0)
    }
}
