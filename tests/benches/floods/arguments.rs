//! Short-lived processes with as many bytes of arguments as an agent reads.

use std::collections::VecDeque;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use procwarden_tests::binaries::binary;
use procwarden_tests::herd::as_account;
use procwarden_tests::payload::{NOBODY, Payload, Running, volatile_directory};
use procwarden_tests::unit::{Unit, rules};
use procwarden_tests::usage::load_average;
use serde_json::{Value, json};

use crate::{DISGUISE, Meter, RULES};

/// Everything counts from its first moment.
const SETTINGS: &str = "[scan]\nmin_age_secs = 0\ninterval_secs = 10\n";

const STARTS_PER_SEC: u32 = 200;
const FLOOD: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(2);
/// What an agent reads of a command line.
const ARGUMENT_BYTES: usize = 32 * 1024;
/// Processes in the flood that stay.
const SURVIVORS: usize = 20;
/// Longest wait for their findings, after the flood.
const FOUND_MAX: Duration = Duration::from_secs(90);

pub(crate) fn measure() -> anyhow::Result<Value> {
    let load_before = load_average();
    let unit = Unit::start(&rules(RULES), SETTINGS)?;
    let before = unit.status().map_err(anyhow::Error::msg)?;
    let directory = volatile_directory()?;
    let payload = Payload::at(&directory.path().join("x")).argv0(DISGUISE);

    let mut meter = Meter::start(&unit)?;
    let mut flood = Flood::default();
    let mut survivors = Vec::new();
    let began = Instant::now();
    while began.elapsed() < FLOOD {
        flood.keep_up(began.elapsed())?;
        meter.sample()?;
        let due = FLOOD / (SURVIVORS as u32 + 1) * (survivors.len() as u32 + 1);
        if survivors.len() < SURVIVORS && began.elapsed() > due {
            survivors.push(payload.start());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut report = json!({
        "arguments_kib": ARGUMENT_BYTES / 1024,
        "starts_per_s": f64::from(flood.started) / meter.secs(),
    });
    meter.add_to(&mut report)?;
    let during = unit.status().map_err(anyhow::Error::msg)?;
    drop(flood);

    report["survivors"] = survivors.len().into();
    report["survivors_found"] = wait_until_found(&unit, &survivors)?.into();
    let count = |status: &Value, field: &str| status[field].as_u64().unwrap_or_default();
    for field in ["scans", "looks", "events_skipped", "event_overflows"] {
        report[field] = count(&during, field)
            .saturating_sub(count(&before, field))
            .into();
    }
    report["load_before"] = load_before.into();
    report["load_after"] = load_average().into();
    Ok(report)
}

/// How many of them are known as disguised once all are, or none is found any
/// more.
fn wait_until_found(unit: &Unit, survivors: &[Running]) -> anyhow::Result<usize> {
    let began = Instant::now();
    loop {
        let findings = unit
            .collector
            .json(&["findings", "list", "--limit", "100000"])
            .map_err(anyhow::Error::msg)?;
        let is_found = |survivor: &&Running| {
            findings
                .iter()
                .any(|f| f["pid"] == survivor.pid() && f["severity"] == "critical")
        };
        let found = survivors.iter().filter(is_found).count();
        if found == survivors.len() || began.elapsed() > FOUND_MAX {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The processes that live, oldest first.
#[derive(Default)]
struct Flood {
    started: u32,
    living: VecDeque<(Instant, Child)>,
}

impl Flood {
    /// Ends what is old, and starts what is due after this time.
    fn keep_up(&mut self, passed: Duration) -> anyhow::Result<()> {
        while self
            .living
            .front()
            .is_some_and(|(at, _)| at.elapsed() > LIFE)
        {
            self.living.pop_front().into_iter().for_each(end);
        }
        if f64::from(self.started) < passed.as_secs_f64() * f64::from(STARTS_PER_SEC) {
            let child = start(self.started)?;
            self.started += 1;
            self.living.push_back((Instant::now(), child));
        }
        Ok(())
    }
}

fn start(number: u32) -> anyhow::Result<Child> {
    let mut command = Command::new(binary("procwarden-payload"));
    // No two are alike.
    let argument = format!("{number:0>width$}", width = ARGUMENT_BYTES);
    command.args(["sleep", &argument]).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    as_account(&mut command, NOBODY);
    Ok(command.spawn()?)
}

fn end((_, mut child): (Instant, Child)) {
    let _ended = child.kill().is_err();
    let _gone = child.wait().is_err();
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.living.drain(..).for_each(end);
    }
}
