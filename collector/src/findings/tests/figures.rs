//! Measures the core path without a network: dedup, journal and index. Asserts
//! nothing about speed; prints figures.
//!
//! ```text
//! cargo test --release -p procwarden-collector --bin procwarden-collector -- \
//!     --ignored --nocapture --exact findings::tests::figures::figures_of_the_history
//! ```
//!
//! `PROCWARDEN_FINDINGS` is the number of findings (default 1,000,000),
//! `PROCWARDEN_DATA` a directory to work in (default: a temporary one).

use std::env;
use std::fs;
use std::process::Command as Process;
use std::time::Instant;

use procwarden_common::finding::Ancestor;
use procwarden_common::process::{Protocol, Socket, SocketState};

use super::*;

const BATCH: u64 = 64;
const SENDERS: u64 = 64;
const DIR: &str = "PROCWARDEN_DATA";

/// A finding of 1.5 KB, as the load generator sends it.
fn realistic(number: u64) -> Change {
    let boot_id = BootId::from_uuid(Uuid::from_u128(77));
    let indicator = Indicator {
        id: "exe-in-volatile-dir".parse().unwrap(),
        severity: Severity::Low,
        evidence: "the executable lies below /dev/shm".to_owned(),
    };
    let text = |n: u64| format!("/home/customer/public_html/file-{n}").into_bytes();
    let map = |n: u64| {
        format!("7f00000{n}0000-7f00000{n}1000 r-xp 00000000 08:01 1234 /usr/lib/x.so").into_bytes()
    };
    Change::Reported(Box::new(Finding {
        subject: Subject::Process(ProcessKey {
            boot_id,
            pid: u32::try_from(number % 4_000_000).unwrap() + 2,
            start_time: number,
        }),
        indicators: vec![indicator],
        observed_at: UnixMillis(1_795_392_060_000),
        uid: 1000,
        user: format!("customer{}", number % 500).into_bytes(),
        process: Some(ProcessFacts {
            comm: b"dbus".to_vec(),
            exe: Some(format!("/dev/shm/.cache-{number}/dbus").into_bytes()),
            exe_sha256: Some([7; 32]),
            cmdline: Cmdline {
                raw: b"/usr/sbin/httpd\0-k\0start\0".to_vec(),
                truncated: false,
            },
            cwd: Some(b"/dev/shm".to_vec()),
            cgroup: b"/user.slice/user-1000.slice/session-1.scope".to_vec(),
            sockets: vec![Socket {
                protocol: Protocol::Tcp,
                state: SocketState::Listen,
                local: Some(([0, 0, 0, 0], 31337).into()),
                remote: None,
                filter_len: None,
            }],
            files: (0..12).map(text).collect(),
            ancestry: vec![Ancestor {
                pid: 1,
                exe: b"/usr/lib/systemd/systemd".to_vec(),
                cmdline: b"/sbin/init\0".to_vec(),
            }],
            maps: (0..6).map(map).collect(),
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    }))
}

fn wanted() -> u64 {
    let number = env::var("PROCWARDEN_FINDINGS").ok();
    number.map_or(1_000_000, |n| n.parse().unwrap())
}

fn cpu_secs() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn resident_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let bytes = |path: &std::path::PathBuf| fs::metadata(path).unwrap().blocks() * 512;
    damage::files(dir).iter().map(bytes).sum()
}

/// Fills a directory, then dies as by kill -9.
#[test]
#[ignore = "part of a measurement"]
fn fill_and_die() {
    let dir = env::var(DIR).expect("started by figures_of_the_history");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill(Path::new(&dir), wanted()));
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .unwrap();
}

async fn fill(dir: &Path, wanted: u64) {
    let begin = Instant::now();
    // What it costs to make the findings is not what is measured.
    let made: u64 = 20_000;
    let making = cpu_secs();
    (0..made).for_each(|n| drop(std::hint::black_box(realistic(n))));
    let making = (cpu_secs() - making) / made as f64;
    let findings = Findings::open(dir).unwrap();
    let cpu = cpu_secs();
    let started = Instant::now();
    let send = |sender: u64| {
        let findings = findings.clone();
        tokio::spawn(async move {
            let mut number = sender * BATCH;
            while number < wanted {
                let changes = (number..(number + BATCH).min(wanted))
                    .map(realistic)
                    .collect();
                record(&findings, u128::from(sender % 1000), 5, changes).await;
                number += SENDERS * BATCH;
            }
        })
    };
    for task in (0..SENDERS).map(send).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let durable = started.elapsed().as_secs_f64();
    let lag = findings.figures().index_lag_bytes;
    while findings.figures().index_lag_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let indexed = started.elapsed().as_secs_f64();
    let cpu = (cpu_secs() - cpu) / wanted as f64 - making;
    println!(
        "fill: {:.0} durable findings/s, {:.0} indexed/s, lag at the end {lag} bytes, \
         {:.1} us CPU per finding (making it, {:.1} us, left out), {} MB resident, {:.0} s in all",
        wanted as f64 / durable,
        wanted as f64 / indexed,
        cpu * 1e6,
        making * 1e6,
        resident_mb(),
        begin.elapsed().as_secs_f64(),
    );
}

#[test]
#[ignore = "measures"]
fn figures_of_the_history() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = env::var(DIR).map_or(temporary.path().to_owned(), Into::into);
    let mut child = Process::new(env::current_exe().unwrap());
    child.args([
        "--ignored",
        "--nocapture",
        "--exact",
        "findings::tests::figures::fill_and_die",
    ]);
    let status = child.env(DIR, &dir).status().unwrap();
    assert!(!status.success(), "it dies by kill -9");
    let wanted = wanted();
    let per_finding = |part: &str| bytes_below(&dir.join(part)) / wanted;
    println!(
        "disk per finding: journal {} + index {} + facts {} bytes",
        per_finding("findings"),
        per_finding("index"),
        per_finding("facts"),
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure_start(&dir, wanted));
}

async fn measure_start(dir: &Path, wanted: u64) {
    let started = Instant::now();
    let findings = Findings::open(dir).unwrap();
    let ingest = started.elapsed();
    record(&findings, 1, 5, vec![realistic(u64::MAX / 2)]).await;
    let first_ack = started.elapsed();
    let list = |filter: &FindingFilter| findings.list(filter, None, 100);
    while list(&FindingFilter::default()).is_err() {}
    println!(
        "start after kill -9: ingest {ingest:.1?}, first ack {first_ack:.1?}, listing {:.1?}, {} MB resident",
        started.elapsed(),
        resident_mb(),
    );
    assert_eq!(findings.figures().findings, wanted + 1);
    let none = FindingFilter::default();
    for (name, filter) in [
        ("latest", none.clone()),
        (
            "of a host",
            FindingFilter {
                host: Some(host(7)),
                ..none.clone()
            },
        ),
        (
            "of an account",
            FindingFilter {
                user: Some(b"customer7".to_vec()),
                ..none.clone()
            },
        ),
        (
            "of an executable",
            FindingFilter {
                exe: Some(ExeFilter::Path(b"/dev/shm/.cache-12345/dbus".to_vec())),
                ..none.clone()
            },
        ),
        (
            "critical",
            FindingFilter {
                min_severity: Some(Severity::Critical),
                ..none.clone()
            },
        ),
        (
            "text",
            FindingFilter {
                text: Some(b".cache-12345/".to_vec()),
                ..none.clone()
            },
        ),
    ] {
        let begin = Instant::now();
        let page = list(&filter).unwrap();
        println!(
            "list 100 {name}: {:.2?}, {} found{}",
            begin.elapsed(),
            page.findings.len(),
            if page.is_cut { ", cut" } else { "" },
        );
    }
    println!("{} MB resident at the end", resident_mb());
    findings.close().await;
}
