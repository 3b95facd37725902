//! An account starts as many suspects as it can whose evidence is dear, so
//! that those of others are not seen.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use procwarden_tests::cc::compile;
use procwarden_tests::herd::{Herd, as_account};
use procwarden_tests::payload::{Payload, Running, volatile_directory};
use procwarden_tests::unit::{Unit, rules};
use procwarden_tests::usage::load_average;
use procwarden_tests::watch::Watch;
use serde_json::{Value, json};

use crate::{DISGUISE, Meter, RULES};

/// Everything counts from its first moment.
const SETTINGS: &str = "[scan]\nmin_age_secs = 0\ninterval_secs = 60\n";

/// Makes mappings and descriptors, and waits.
const DEAR: &str = include_str!("dear.c");
const SUSPECTS: usize = 1200;
/// More lines of a map than an agent reads.
const MAPPINGS: usize = 2000;
const DESCRIPTORS: usize = 500;
/// An account that nothing else on the machine uses.
const HOSTILE_UID: u32 = 59_322;

/// Longest wait for all findings.
const FOUND_MAX: Duration = Duration::from_secs(900);
/// How long the disguised one is waited for, after all others.
const DISGUISED_MAX: Duration = Duration::from_secs(120);

pub(crate) fn measure() -> anyhow::Result<Value> {
    let load_before = load_average();
    let mut unit = Unit::start(&rules(RULES), SETTINGS)?;
    let quota = unit.hold_to_share();
    let directory = volatile_directory()?;
    let dear = directory.path().join("dear");
    compile(&dear, DEAR, &["-O2"])?;
    std::fs::set_permissions(&dear, Permissions::from_mode(0o755))?;
    // Of the account `nobody`.
    let disguised = Payload::at(&directory.path().join("x")).argv0(DISGUISE);
    let watch = Watch::start(&unit.collector, None)?;

    let mut meter = Meter::start(&unit)?;
    let herd = Herd::of(SUSPECTS, || {
        let mut command = Command::new(&dear);
        command.args([MAPPINGS.to_string(), DESCRIPTORS.to_string()]);
        as_account(&mut command, HOSTILE_UID);
        command
    })?;
    let started_secs = meter.secs();
    let mut arrivals = Arrivals::default();
    while !arrivals.are_complete() && meter.began.elapsed() < FOUND_MAX {
        arrivals.wait(&watch, &herd, meter.began);
        meter.sample()?;
        if arrivals.secs.len() >= SUSPECTS / 2 && arrivals.disguised.is_none() {
            arrivals.disguised = Some((disguised.start(), Instant::now(), None));
        }
    }
    let mut report = json!({ "suspects": SUSPECTS, "quota": quota, "started_secs": started_secs });
    meter.add_to(&mut report)?;
    let until = Instant::now() + DISGUISED_MAX;
    while arrivals.awaits_disguised() && Instant::now() < until {
        arrivals.wait(&watch, &herd, meter.began);
    }
    arrivals.add_to(&mut report);
    report["brief"] = brief(&unit, &arrivals)?.into();
    let status = unit.status().map_err(anyhow::Error::msg)?;
    for field in ["scans", "looks", "events_skipped", "spool_dropped", "notes"] {
        report[field] = status[field].clone();
    }
    report["load_before"] = load_before.into();
    report["load_after"] = load_average().into();
    Ok(report)
}

/// What reached the collector.
#[derive(Default)]
struct Arrivals {
    /// Id of each finding about a suspect, and when it came.
    secs: HashMap<String, f64>,
    /// The disguised process, when it was started, and after how long its
    /// finding came.
    disguised: Option<(Running, Instant, Option<f64>)>,
}

impl Arrivals {
    fn are_complete(&self) -> bool {
        self.secs.len() >= SUSPECTS
    }

    fn awaits_disguised(&self) -> bool {
        matches!(self.disguised, Some((_, _, None)))
    }

    /// Takes the next finding, if one comes soon.
    fn wait(&mut self, watch: &Watch, herd: &Herd, began: Instant) {
        let Some((finding, at)) = watch.next(crate::SAMPLE_PAUSE) else {
            return;
        };
        let of = |pid: u32| finding["pid"] == pid;
        if let Some((running, started, found)) = &mut self.disguised
            && of(running.pid())
        {
            found.get_or_insert((at - *started).as_secs_f64());
        } else if herd.pids().into_iter().any(of) {
            let id = finding["id"].as_str().unwrap_or_default().to_owned();
            self.secs.entry(id).or_insert((at - began).as_secs_f64());
        }
    }

    fn add_to(&self, report: &mut Value) {
        let mut secs: Vec<f64> = self.secs.values().copied().collect();
        secs.sort_by(f64::total_cmp);
        report["suspects_found"] = secs.len().into();
        report["first_secs"] = json!(secs.first());
        report["half_secs"] = json!(secs.get(SUSPECTS / 2));
        report["last_secs"] = json!(secs.last());
        let found = self.disguised.as_ref().and_then(|(_, _, found)| *found);
        report["disguised_found_secs"] = json!(found);
    }
}

/// How many findings have no digest: what else makes evidence whole goes
/// with it.
fn brief(unit: &Unit, arrivals: &Arrivals) -> anyhow::Result<usize> {
    let findings = unit
        .collector
        .json(&["findings", "list", "--limit", "100000"])
        .map_err(anyhow::Error::msg)?;
    let is_brief = |finding: &&Value| {
        let id = finding["id"].as_str().unwrap_or_default();
        arrivals.secs.contains_key(id) && finding.get("exe_sha256").is_none()
    };
    Ok(findings.iter().filter(is_brief).count())
}
