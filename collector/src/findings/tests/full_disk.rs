//! A full disk holds findings back and loses none; they go on by themselves.
//!
//! The disk is a small tmpfs in a mount namespace of its own, which only root
//! can make.

use std::env;
use std::fs;
use std::process::Command as Process;
use std::time::Instant;

use super::*;

const DIR: &str = "PROCWARDEN_SMALL_DISK";
const DISK: &str = "size=48m";
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_full_disk_holds_findings_back_until_there_is_room() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small disk");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let body = "findings::tests::full_disk::on_a_small_disk";
    let script = format!(
        "mount -t tmpfs -o {DISK} small \"${DIR}\" && exec \"$0\" --ignored --nocapture --exact {body}"
    );
    let mut child = Process::new("unshare");
    child.args(["--mount", "sh", "-c", &script]);
    child.arg(env::current_exe().unwrap()).env(DIR, dir.path());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "started by the test above, on its disk"]
fn on_a_small_disk() {
    let Some(dir) = env::var_os(DIR) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(fill_and_make_room(Path::new(&dir)));
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn large(pid: u32) -> Change {
    let Change::Reported(mut finding) = simple(pid) else {
        panic!("a report");
    };
    finding.process.as_mut().unwrap().maps = vec![vec![b'm'; 500]; 200];
    Change::Reported(finding)
}

async fn fill_and_make_room(dir: &Path) {
    let findings = Findings::open(dir).unwrap();
    record(&findings, 1, 1, vec![simple(0)]).await;
    until("the index is there", || {
        findings.figures().index_lag_bytes == 0
    })
    .await;
    let filler = dir.join("filler");
    fs::write(&filler, vec![1; 30 << 20]).unwrap();

    let sender = findings.clone();
    let sending = tokio::spawn(async move {
        for pid in 1..=400 {
            record(&sender, 1, 1, vec![large(pid)]).await;
        }
    });
    until("findings are held back", || {
        findings.figures().held_back.is_some()
    })
    .await;
    let reason = findings.figures().held_back.unwrap();
    assert!(reason.contains("make room"), "{reason}");
    let held_at = findings.end();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(findings.end(), held_at, "nothing is written meanwhile");
    assert!(!sending.is_finished());
    assert!(
        findings.get(id(1, 1)).unwrap().is_some(),
        "questions are answered"
    );

    fs::remove_file(&filler).unwrap();
    // Half as much again would not fit: the reports so far are enough.
    until("findings go on", || findings.figures().held_back.is_none()).await;
    until("more is recorded", || findings.end() > held_at).await;
    sending.abort();
    drop(sending.await);
    until("the index is there", || {
        findings.figures().index_lag_bytes == 0
    })
    .await;
    let recorded = journal_ids(&findings);
    let distinct: std::collections::BTreeSet<_> = recorded.iter().collect();
    assert_eq!(distinct.len(), recorded.len());
    findings.close().await;
    let findings = Findings::open(dir).unwrap();
    assert_eq!(findings.figures().findings, recorded.len() as u64);
    assert_eq!(
        list_all(&findings, &FindingFilter::default()).len(),
        recorded.len()
    );
    findings.close().await;
}
