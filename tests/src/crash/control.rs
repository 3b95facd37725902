//! The control that has to fail: sled alone as the truth, with its own
//! `flush` as the promise of durability.
//!
//! On Linux sled's `flush` starts the writing of pages and never waits for
//! the disk's metadata or flushes its cache; after a power cut records that
//! it had returned for are gone. A harness that reports no loss here would
//! report none anywhere.
//!
//! Writer and reader are processes of their own, as the collector is.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::disk::{Disk, SMALL_BYTES};
use super::{LOAD_MS, PATIENCE, PAUSE, Plan};

/// Records between two flushes.
const BATCH: u64 = 16;

/// As long as a finding in a journal.
const RECORD_BYTES: usize = 1_500;

/// Cuts the power under sled, round after round.
///
/// # Errors
/// When a disk or process fails for a reason of its own.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Value> {
    let begin = Instant::now();
    let (mut acked, mut lost, mut rounds_with_loss) = (0, 0, 0);
    for round in 0..plan.rounds {
        let (promised, kept) = cut_once(plan).with_context(|| format!("in round {round}"))?;
        acked += promised;
        lost += promised.saturating_sub(kept);
        rounds_with_loss += u64::from(kept < promised);
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(json!({
        "mode": plan.mode.word(),
        "rounds": plan.rounds,
        "rounds_with_loss": rounds_with_loss,
        "acked": acked,
        "lost": lost,
        "seconds": seconds,
        "seconds_per_round": seconds / plan.rounds.max(1) as f64,
    }))
}

/// Records that were promised to be durable, and how many of them are there
/// after a power cut.
fn cut_once(plan: &Plan) -> anyhow::Result<(u64, u64)> {
    let directory = tempfile::Builder::new()
        .prefix("procwarden-control-")
        .tempdir_in(&plan.directory)?;
    let data = directory.path().join("data");
    let mut disk = Disk::create(directory.path(), &data, SMALL_BYTES)?;
    let mut writer = own_program("sled-writer", &data)?.spawn()?;
    let promised = Arc::new(AtomicU64::new(0));
    let stdout = writer.stdout.take().context("the writer has no output")?;
    let reader = std::thread::spawn({
        let promised = Arc::clone(&promised);
        move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let count = line.parse().unwrap_or(0);
                promised.fetch_max(count, Ordering::Relaxed);
            }
        }
    });
    let begin = Instant::now();
    while promised.load(Ordering::Relaxed) == 0 && begin.elapsed() < PATIENCE {
        std::thread::sleep(PAUSE);
    }
    std::thread::sleep(Duration::from_millis(fastrand::u64(..=LOAD_MS)));
    // What is promised after the cut is none of sled's business: only what
    // was promised before counts.
    let before = promised.load(Ordering::Relaxed);
    disk.cut()?;
    writer.kill()?;
    writer.wait()?;
    drop(reader.join());
    ensure!(before > 0, "sled promised nothing in {PATIENCE:?}");
    disk.revive()?;

    let output = own_program("sled-reader", &data)?
        .arg(before.to_string())
        .output()?;
    // A database that cannot be opened holds nothing.
    let kept = String::from_utf8_lossy(&output.stdout).trim().parse();
    Ok((before, kept.unwrap_or(0)))
}

fn own_program(what: &str, data: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(what).arg(data.join("sled"));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command)
}

/// Writes records for ever, and prints how many `flush` has returned for.
///
/// # Errors
/// When sled or the output fails.
pub fn write_for_ever(directory: &Path) -> anyhow::Result<()> {
    let database = sled::open(directory)?;
    let mut out = std::io::stdout().lock();
    let mut count = 0_u64;
    loop {
        for number in count..count + BATCH {
            database.insert(number.to_be_bytes(), record(number))?;
        }
        database.flush()?;
        count += BATCH;
        writeln!(out, "{count}")?;
        out.flush()?;
    }
}

/// How many of the first `count` records are there, as they were written.
///
/// # Errors
/// When the database cannot be opened.
pub fn count_kept(directory: &Path, count: u64) -> anyhow::Result<u64> {
    let database = sled::open(directory)?;
    let is_kept = |number: &u64| {
        let found = database.get(number.to_be_bytes());
        matches!(found, Ok(Some(value)) if value == record(*number))
    };
    Ok((0..count).filter(is_kept).count() as u64)
}

fn record(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    (0..RECORD_BYTES).map(|_| random.u8(..)).collect()
}
