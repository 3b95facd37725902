//! The spool against a model: whatever is appended, acknowledged, reopened or
//! cut, it delivers what the model holds.

use std::fs;
use std::path::{Path, PathBuf};

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Ended, Finding, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::ProcessKey;
use proptest::prelude::*;

use super::*;

mod anew;
mod crashes;
mod owed;

const ROOMY: u64 = 1024 * 1024;

fn subject(pid: u32) -> Subject {
    let boot_id = BootId::from_slice(&[7; 16]).unwrap();
    Subject::Process(ProcessKey {
        boot_id,
        pid,
        start_time: 1,
    })
}

fn reported(pid: u32, severity: Severity, evidence_bytes: usize) -> Change {
    Change::Reported(Box::new(Finding {
        subject: subject(pid),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_MEMFD,
            severity,
            evidence: "e".repeat(evidence_bytes),
        }],
        observed_at: UnixMillis(1),
        uid: 65534,
        user: b"nobody".to_vec(),
        process: None,
        host: None,
        actions: Vec::new(),
        quiet: false,
    }))
}

fn ended(pid: u32) -> Change {
    Change::Ended(Ended {
        subject: subject(pid),
        ended_at: UnixMillis(2),
    })
}

fn salt() -> Salt {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    Salt::from_le_bytes(bytes)
}

fn open(dir: &Path, max_bytes: u64) -> Spool {
    Spool::open(dir, max_bytes, salt).unwrap().spool
}

/// (sequence, pid) of everything that waits, read in small batches.
fn contents(spool: &mut Spool) -> Vec<(u64, u32)> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |(seq, _)| *seq);
        let batch = spool.read_batch(after, 3, 2000);
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.iter().map(|e| (e.sequence, pid_of(e))));
    }
}

fn pid_of(event: &v1::Event) -> u32 {
    let subject = match event.event.as_ref().unwrap() {
        v1::event::Event::Finding(f) => f.subject.as_ref().unwrap(),
        v1::event::Event::Ended(e) => e.subject.as_ref().unwrap(),
    };
    match subject.kind.as_ref().unwrap() {
        v1::subject::Kind::Process(p) => p.pid,
        v1::subject::Kind::Account(a) => a.uid,
        v1::subject::Kind::Host(_) => 0,
    }
}

fn newest_file(dir: &Path) -> PathBuf {
    segment::list(dir).unwrap().last().unwrap().path(dir)
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<usize>),
    Ack(prop::sample::Index),
    Reopen,
    LoseState,
    /// A crash in the middle of an append: the file ends anywhere behind what
    /// was durable, with any bytes.
    TornAppend(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec(1usize..900, 1..5).prop_map(Step::Append),
        2 => any::<prop::sample::Index>().prop_map(Step::Ack),
        2 => Just(Step::Reopen),
        1 => Just(Step::LoseState),
        2 => proptest::collection::vec(any::<u8>(), 1..50).prop_map(Step::TornAppend),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn delivers_what_the_model_holds(steps in proptest::collection::vec(step(), 1..16)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), ROOMY);
        let mut model: Vec<(u64, u32)> = Vec::new();
        let mut pid = 0;
        let mut newest = 0;
        let mut acked = 0;
        let mut state_lost = false;
        for step in steps {
            match step {
                Step::Append(sizes) => {
                    let changes: Vec<_> = sizes
                        .iter()
                        .map(|&bytes| { pid += 1; reported(pid, Severity::High, bytes) })
                        .collect();
                    spool.append(&changes).unwrap();
                    for at in 0..changes.len() {
                        newest += 1;
                        model.push((newest, pid - (changes.len() - 1 - at) as u32));
                    }
                }
                Step::Ack(at) => {
                    let sequence = at.index(newest as usize + 1) as u64;
                    spool.ack(sequence).unwrap();
                    model.retain(|(seq, _)| *seq > sequence);
                    // An older ack does not bring back what was lost.
                    state_lost &= sequence < acked;
                    acked = acked.max(sequence);
                }
                Step::Reopen => {
                    drop(spool);
                    spool = open(dir.path(), ROOMY);
                }
                Step::LoseState => {
                    drop(spool);
                    fs::write(dir.path().join("state"), "x").unwrap();
                    let opened = Spool::open(dir.path(), ROOMY, salt).unwrap();
                    prop_assert!(opened.state_lost);
                    spool = opened.spool;
                    state_lost = true;
                }
                Step::TornAppend(garbage) => {
                    drop(spool);
                    let path = newest_file(dir.path());
                    let mut bytes = fs::read(&path).unwrap();
                    bytes.extend_from_slice(&garbage);
                    fs::write(&path, bytes).unwrap();
                    let opened = Spool::open(dir.path(), ROOMY, salt).unwrap();
                    prop_assert_eq!(opened.torn_bytes, garbage.len() as u64);
                    spool = opened.spool;
                }
            }
            prop_assert_eq!(spool.newest(), newest);
            let summed: u64 = spool.index.values().map(Entry::record_bytes).sum();
            prop_assert_eq!(spool.figures().bytes, summed);
            let held = contents(&mut spool);
            if state_lost {
                // Acknowledged events may come again; none may be missing.
                prop_assert!(held.ends_with(&model));
            } else {
                prop_assert_eq!(&held, &model);
            }
        }
    }

    #[test]
    fn a_cut_at_any_byte_costs_no_earlier_record(
        sizes in proptest::collection::vec(1usize..200, 1..8), cut in any::<prop::sample::Index>()
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), ROOMY);
        let mut ends = Vec::new();
        for (pid, &bytes) in sizes.iter().enumerate() {
            spool.append(&[reported(pid as u32 + 1, Severity::Low, bytes)]).unwrap();
            ends.push(fs::metadata(newest_file(dir.path())).unwrap().len());
        }
        drop(spool);
        let path = newest_file(dir.path());
        let cut = cut.index(*ends.last().unwrap() as usize + 1) as u64;
        fs::File::options().write(true).open(&path).unwrap().set_len(cut).unwrap();
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let mut spool = open(dir.path(), ROOMY);
        let expected: Vec<_> = (1..=whole).map(|n| (n as u64, n as u32)).collect();
        prop_assert_eq!(contents(&mut spool), expected);
        spool.append(&[ended(99)]).unwrap();
        prop_assert_eq!(contents(&mut open(dir.path(), ROOMY)).last().copied(), Some((whole as u64 + 1, 99)));
    }

    #[test]
    fn a_full_spool_stays_in_its_limit_and_counts(
        events in proptest::collection::vec((0usize..5, 1usize..900), 100..180),
        per_append in 1usize..40,
    ) {
        const MAX: u64 = 64 * 1024;
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), MAX);
        for (chunk_at, chunk) in events.chunks(per_append).enumerate() {
            let first_pid = chunk_at * per_append;
            let changes: Vec<_> = chunk
                .iter()
                .enumerate()
                .map(|(n, &(severity, bytes))| reported((first_pid + n) as u32, Severity::ALL[severity], bytes))
                .collect();
            spool.append(&changes).unwrap();
            let on_disk: u64 = segment::list(dir.path())
                .unwrap()
                .iter()
                .map(|id| fs::metadata(id.path(dir.path())).unwrap().len())
                .sum();
            prop_assert!(on_disk <= MAX, "{}", on_disk);
            let summed: u64 = spool.index.values().map(Entry::record_bytes).sum();
            prop_assert_eq!(spool.figures().bytes, summed);
        }
        drop(spool);
        let mut spool = open(dir.path(), MAX);
        let held = contents(&mut spool);
        prop_assert_eq!(held.len() as u64 + spool.figures().dropped, events.len() as u64);
        // The least severity that was ever dropped bounds what can remain below it.
        let kept = |pid: usize| held.iter().any(|(_, p)| *p as usize == pid);
        let highest_dropped = (0..events.len()).filter(|&p| !kept(p)).map(|p| events[p].0).max();
        if let Some(highest) = highest_dropped {
            let last = (0..events.len()).filter(|&p| !kept(p) && events[p].0 == highest).max().unwrap();
            for (pid, (severity, _)) in events.iter().enumerate().take(last) {
                prop_assert!(*severity >= highest || !kept(pid), "{} kept over {}", pid, last);
            }
        }
    }
}

#[test]
fn the_new_event_itself_may_be_the_least() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 64 * 1024);
    let changes: Vec<_> = (0..80)
        .map(|pid| reported(pid, Severity::High, 800))
        .collect();
    spool.append(&changes).unwrap();
    let before = contents(&mut spool);
    // More than what is left: all but the last few go at once.
    spool
        .append(&(200..500).map(ended).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(
        spool.figures().dropped,
        380 - contents(&mut spool).len() as u64
    );
    assert!(contents(&mut spool).starts_with(&before));
    assert!(contents(&mut spool).len() < before.len() + 300);
    spool
        .append(&[reported(1000, Severity::Critical, 800)])
        .unwrap();
    assert_eq!(contents(&mut spool).last().map(|(_, pid)| *pid), Some(1000));
}

#[test]
fn a_damaged_record_costs_itself_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), ROOMY);
    for pid in 1..=3 {
        spool.append(&[reported(pid, Severity::High, 50)]).unwrap();
    }
    let path = newest_file(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    // Found while it runs, and found at the next start.
    assert_eq!(contents(&mut spool), [(1, 1), (3, 3)]);
    assert_eq!(spool.figures().damaged, 1);
    let mut opened = Spool::open(dir.path(), ROOMY, salt).unwrap();
    assert_eq!((opened.damaged, opened.torn_bytes), (1, 0));
    assert_eq!(contents(&mut opened.spool), [(1, 1), (3, 3)]);
    opened.spool.append(&[ended(4)]).unwrap();
    assert_eq!(
        contents(&mut open(dir.path(), ROOMY)),
        [(1, 1), (3, 3), (4, 4)]
    );
}

#[test]
fn sequences_rise_over_a_restart_with_nothing_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), ROOMY);
    spool.append(&[ended(1), ended(2)]).unwrap();
    spool.ack(2).unwrap();
    drop(spool);
    fs::remove_file(dir.path().join("state")).unwrap();
    let mut spool = open(dir.path(), ROOMY);
    spool.append(&[ended(3)]).unwrap();
    assert_eq!(contents(&mut spool).last(), Some(&(3, 3)));
}

#[test]
fn acknowledged_segments_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 64 * 1024);
    for pid in 0..40 {
        spool.append(&[reported(pid, Severity::High, 800)]).unwrap();
    }
    assert!(segment::list(dir.path()).unwrap().len() > 3);
    spool.ack(u64::MAX).unwrap();
    assert_eq!(segment::list(dir.path()).unwrap().len(), 1);
    assert_eq!(spool.figures().events, 0);
}

#[test]
fn a_disk_that_refuses_costs_nothing_while_memory_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let spool_dir = dir.path().join("spool");
    let mut spool = open(&spool_dir, ROOMY);
    spool.append(&[ended(1)]).unwrap();
    spool.ack(1).unwrap();
    spool.active = None;
    fs::remove_dir_all(&spool_dir).unwrap();
    assert!(spool.append(&[ended(2)]).is_err());
    assert_eq!(spool.figures().in_memory, 1);
    assert_eq!(contents(&mut spool), [(2, 2)]);
    assert!(spool.append(&[ended(3)]).is_err());
    fs::create_dir(&spool_dir).unwrap();
    spool.append(&[]).unwrap();
    assert_eq!(spool.figures().in_memory, 0);
    assert_eq!(contents(&mut open(&spool_dir, ROOMY)), [(2, 2), (3, 3)]);
}
