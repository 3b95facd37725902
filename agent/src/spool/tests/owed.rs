//! Ends that a full spool dropped: each is told in the end, whatever happens
//! in between, or is counted as lost.

use std::ops::Range;

use super::*;

/// The smallest spool; it remembers 51 ends.
const SMALL: u64 = 64 * 1024;

/// Lets a spool of [`SMALL`] run over with findings.
fn flood(spool: &mut Spool, first_pid: u32) {
    for pid in first_pid..first_pid + 90 {
        spool.append(&[reported(pid, Severity::High, 800)]).unwrap();
    }
}

/// A collector that takes everything and acknowledges it; which PIDs ended.
fn drain(spool: &mut Spool) -> Vec<u32> {
    let mut ended = Vec::new();
    loop {
        let batch = spool.read_batch(0, 7, 20_000);
        let Some(last) = batch.last() else {
            return ended;
        };
        let is_end = |event: &&v1::Event| matches!(event.event, Some(v1::event::Event::Ended(_)));
        ended.extend(batch.iter().filter(is_end).map(pid_of));
        spool.ack(last.sequence).unwrap();
        spool.tell_owed().unwrap();
    }
}

/// A full spool that dropped the ends of the PIDs 1 to 20.
fn owing(dir: &Path) -> Spool {
    let mut spool = open(dir, SMALL);
    spool
        .append(&(1..=20).map(ended).collect::<Vec<_>>())
        .unwrap();
    flood(&mut spool, 1000);
    assert_eq!(spool.owed.len(), 20);
    spool
}

/// Fills a spool of [`SMALL`] until not even an end fits, with findings that
/// are worth more than all others; how many those were.
fn fill(spool: &mut Spool, first_pid: u32) -> u32 {
    const EVIDENCE: usize = 1500;
    // The numbers of a finding may take a few bytes more.
    const SLACK: usize = 6;
    let critical = |pid, bytes| reported(pid, Severity::Critical, bytes);
    let mut next = first_pid + 30;
    let findings: Vec<_> = (first_pid..next)
        .map(|pid| critical(pid, EVIDENCE))
        .collect();
    spool.append(&findings).unwrap();
    let newest = spool.index.last_key_value().unwrap().1;
    let overhead = newest.record_bytes() as usize - EVIDENCE;
    loop {
        let left = (SMALL - spool.figures().bytes) as usize;
        let evidence = match left.saturating_sub(overhead + SLACK) {
            0 => return next - first_pid,
            all if all < 2 * EVIDENCE => all,
            _ => EVIDENCE,
        };
        spool.append(&[critical(next, evidence)]).unwrap();
        next += 1;
    }
}

/// A spool so full that the end of PID 1 was itself the least.
fn without_room(dir: &Path) -> Spool {
    let mut spool = open(dir, SMALL);
    fill(&mut spool, 1000);
    assert_eq!(spool.figures().dropped, 0);
    spool.append(&[ended(1)]).unwrap();
    assert_eq!((spool.owed.len(), spool.figures().dropped), (1, 1));
    spool
}

fn all() -> Vec<u32> {
    (1..=20).collect()
}

#[test]
fn dropped_ends_are_counted_and_told_once_half_of_the_spool_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = owing(dir.path());
    assert!(spool.is_durable());
    let dropped = spool.figures().dropped;
    assert!(dropped >= 20);
    // Scans that have nothing to say tell none while it is full.
    spool.append(&[]).unwrap();
    assert_eq!(spool.owed.len(), 20);
    assert_eq!(drain(&mut spool), all());
    let figures = spool.figures();
    assert_eq!((figures.dropped, figures.lost_ends), (dropped, 0));
    assert!(drain(&mut open(dir.path(), SMALL)).is_empty());
}

#[test]
fn dropped_ends_outlive_a_restart_and_a_larger_limit_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    drop(owing(dir.path()));
    let mut spool = open(dir.path(), SMALL);
    assert_eq!(spool.owed.len(), 20);
    spool.set_max_bytes(ROOMY).unwrap();
    spool.append(&[]).unwrap();
    assert_eq!(spool.owed.len(), 0);
    drop(spool);
    assert_eq!(drain(&mut open(dir.path(), ROOMY)), all());
}

#[test]
fn an_end_that_finds_no_room_at_all_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    drop(without_room(dir.path()));
    assert_eq!(drain(&mut open(dir.path(), SMALL)), [1]);
}

#[test]
fn an_end_that_found_no_room_is_not_taken_for_what_comes_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    drop(without_room(dir.path()));
    let mut spool = open(dir.path(), SMALL);
    spool
        .append(&[reported(5000, Severity::Critical, 800)])
        .unwrap();
    drop(spool);
    let mut spool = open(dir.path(), SMALL);
    assert_eq!(drain(&mut spool), [1]);
    assert_eq!(spool.figures().lost_ends, 0);
}

#[test]
fn the_number_of_a_report_that_found_no_room_is_not_given_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    fill(&mut spool, 1000);
    for dropped in 1..=3 {
        let newest = spool.newest();
        spool.append(&[reported(1, Severity::Info, 9)]).unwrap();
        assert_eq!(spool.figures().dropped, dropped);
        drop(spool);
        spool = open(dir.path(), SMALL);
        assert_eq!(spool.newest(), newest + 1);
    }
}

#[test]
fn ends_that_find_no_room_before_and_after_restarts_are_all_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = without_room(dir.path());
    for pid in 2..=3 {
        drop(spool);
        spool = open(dir.path(), SMALL);
        spool.append(&[ended(pid)]).unwrap();
    }
    assert_eq!((spool.owed.len(), spool.figures().dropped), (3, 3));
    drop(spool);
    assert_eq!(drain(&mut open(dir.path(), SMALL)), [1, 2, 3]);
}

#[test]
fn an_owed_end_is_struck_out_by_the_same_end_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(owing(dir.path()));
    let owed = fs::read(dir.path().join("owed")).unwrap();
    for (others, left) in [
        ((1..=20).map(ended).collect::<Vec<_>>(), 0),
        ((101..=120).map(ended).collect(), 20),
        (
            (1..=20)
                .map(|pid| reported(pid, Severity::Low, 9))
                .collect(),
            20,
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), SMALL).append(&others).unwrap();
        fs::write(dir.path().join("owed"), &owed).unwrap();
        assert_eq!(open(dir.path(), SMALL).owed.len(), left);
    }
}

#[test]
fn a_crash_between_taking_down_and_dropping_tells_each_end_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    spool
        .append(&(1..=20).map(ended).collect::<Vec<_>>())
        .unwrap();
    let before = super::crashes::crashed(dir.path());
    flood(&mut spool, 1000);
    fs::copy(dir.path().join("owed"), before.path().join("owed")).unwrap();
    let mut spool = open(before.path(), SMALL);
    assert_eq!(spool.owed.len(), 0);
    assert_eq!(drain(&mut spool), all());
}

#[test]
fn a_crash_between_telling_and_striking_out_tells_twice_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = owing(dir.path());
    let before = fs::read(dir.path().join("owed")).unwrap();
    spool.set_max_bytes(ROOMY).unwrap();
    spool.tell_owed().unwrap();
    drop(spool);
    fs::write(dir.path().join("owed"), before).unwrap();
    let mut told = drain(&mut open(dir.path(), ROOMY));
    assert_eq!(told.len(), 40);
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, all());
}

#[test]
fn a_disk_that_refuses_them_has_them_told_later() {
    let dir = tempfile::tempdir().unwrap();
    let spool_dir = dir.path().join("spool");
    let mut spool = owing(&spool_dir);
    spool.set_max_bytes(ROOMY).unwrap();
    spool.active = None;
    let away = dir.path().join("away");
    fs::rename(&spool_dir, &away).unwrap();
    let before = spool.figures();
    assert!(spool.tell_owed().is_err());
    assert_eq!((spool.owed.len(), spool.figures()), (20, before));
    fs::rename(&away, &spool_dir).unwrap();
    spool.tell_owed().unwrap();
    assert_eq!(spool.owed.len(), 0);
    assert_eq!(drain(&mut spool), all());
}

#[test]
fn what_cannot_be_taken_down_is_not_called_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    spool
        .append(&(1..=20).map(ended).collect::<Vec<_>>())
        .unwrap();
    // Nothing can be put in the place of a directory.
    fs::create_dir(dir.path().join("owed")).unwrap();
    let findings: Vec<_> = (1000..1090)
        .map(|pid| reported(pid, Severity::High, 800))
        .collect();
    assert!(spool.append(&findings).is_err());
    assert!(!spool.is_durable());
    fs::remove_dir(dir.path().join("owed")).unwrap();
    spool.append(&[]).unwrap();
    assert!(spool.is_durable());
    assert_eq!(drain(&mut spool), all());
}

/// Reports findings, ten at a time; how often there was an error.
fn refused(spool: &mut Spool, pids: Range<u32>, severity: Severity) -> usize {
    let findings: Vec<_> = pids.map(|pid| reported(pid, severity, 800)).collect();
    let appended = findings.chunks(10).map(|tens| spool.append(tens));
    appended.filter(Result::is_err).count()
}

/// A full spool that dropped the 20 durable ends, and cannot write them down.
fn unable_to_owe(dir: &Path) -> Spool {
    let mut spool = open(dir, SMALL);
    spool
        .append(&(1..=20).map(ended).collect::<Vec<_>>())
        .unwrap();
    // Nothing can be put in the place of a directory.
    fs::create_dir(dir.join("owed")).unwrap();
    assert!(refused(&mut spool, 1000..1100, Severity::High) > 0);
    assert!(!spool.is_durable());
    spool
}

#[test]
fn ends_that_could_not_be_taken_down_outlive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    drop(unable_to_owe(dir.path()));
    fs::remove_dir(dir.path().join("owed")).unwrap();
    let mut spool = open(dir.path(), SMALL);
    spool.append(&[]).unwrap();
    assert!(spool.is_durable());
    let told = drain(&mut spool);
    assert_eq!((told, spool.figures().lost_ends), (all(), 0));
}

#[test]
fn an_ack_does_not_pass_ends_that_could_not_be_taken_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = unable_to_owe(dir.path());
    assert!(spool.ack(spool.newest()).is_err());
    // What is acknowledged makes way all the same: the disk may be full.
    let before = files_bytes(dir.path());
    assert!(spool.append(&[]).is_err());
    assert!(files_bytes(dir.path()) < before);
    drop(spool);
    fs::remove_dir(dir.path().join("owed")).unwrap();
    let mut spool = open(dir.path(), SMALL);
    spool.append(&[]).unwrap();
    let told = drain(&mut spool);
    assert_eq!((told, spool.figures().lost_ends), (all(), 0));
}

#[test]
fn what_could_not_be_taken_down_is_by_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = unable_to_owe(dir.path());
    fs::remove_dir(dir.path().join("owed")).unwrap();
    spool.append(&[]).unwrap();
    assert!(spool.is_durable());
    assert!(files_bytes(dir.path()) <= SMALL);
    let dropped = spool.figures().dropped;
    drop(spool);
    let mut spool = open(dir.path(), SMALL);
    assert_eq!(spool.figures().dropped, dropped);
    assert_eq!(drain(&mut spool), all());
}

#[test]
fn a_list_that_cannot_be_written_does_not_let_the_spool_grow() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = unable_to_owe(dir.path());
    assert_eq!(refused(&mut spool, 2000..2200, Severity::Critical), 20);
    let bytes = files_bytes(dir.path());
    assert!(bytes <= SMALL + spool.segment_bytes(), "{bytes}");
    assert!(spool.figures().bytes <= SMALL);
}

/// Bytes of all segments.
fn files_bytes(dir: &Path) -> u64 {
    let ids = segment::list(dir).unwrap();
    let bytes = |id: &SegmentId| fs::metadata(id.path(dir)).unwrap().len();
    ids.iter().map(bytes).sum()
}

#[test]
fn a_damaged_list_is_told_and_costs_its_ends_only() {
    let dir = tempfile::tempdir().unwrap();
    let before = contents(&mut owing(dir.path()));
    fs::write(dir.path().join("owed"), "x").unwrap();
    let mut opened = Spool::open(dir.path(), SMALL, salt).unwrap();
    assert!(opened.owed_lost && !opened.state_lost);
    assert_eq!(contents(&mut opened.spool), before);
    assert_eq!(opened.spool.figures().lost_ends, 1);
    assert!(opened.spool.is_durable());
    // It is told once, and not by each start.
    drop(opened);
    let opened = Spool::open(dir.path(), SMALL, salt).unwrap();
    assert!(!opened.owed_lost);
    assert_eq!(opened.spool.figures().lost_ends, 0);
}

#[test]
fn a_list_that_cannot_be_read_costs_its_ends_only() {
    let dir = tempfile::tempdir().unwrap();
    let before = contents(&mut owing(dir.path()));
    let list = dir.path().join("owed");
    fs::remove_file(&list).unwrap();
    fs::create_dir(&list).unwrap();
    let mut opened = Spool::open(dir.path(), SMALL, salt).unwrap();
    assert!(opened.owed_lost);
    assert_eq!(contents(&mut opened.spool), before);
    assert_eq!(opened.spool.figures().lost_ends, 1);
    assert!(!opened.spool.is_durable());
    fs::remove_dir(&list).unwrap();
    opened.spool.append(&[]).unwrap();
    assert!(opened.spool.is_durable());
    drop(opened);
    assert!(!Spool::open(dir.path(), SMALL, salt).unwrap().owed_lost);
}

#[test]
fn an_opening_that_is_short_of_descriptors_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let before = contents(&mut owing(dir.path()));
    segment::IS_WITHOUT_DESCRIPTORS.set(true);
    let opened = Spool::open(dir.path(), SMALL, salt);
    segment::IS_WITHOUT_DESCRIPTORS.set(false);
    assert!(opened.unwrap_err().is_passing());
    let mut opened = Spool::open(dir.path(), SMALL, salt).unwrap();
    assert_eq!((opened.damaged, opened.torn_bytes), (0, 0));
    assert!(!opened.owed_lost && !opened.state_lost);
    assert_eq!(contents(&mut opened.spool), before);
    assert_eq!(drain(&mut opened.spool), all());
}

#[test]
fn ends_that_cannot_be_read_at_this_moment_are_kept_and_taken_down_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    spool
        .append(&(1..=20).map(ended).collect::<Vec<_>>())
        .unwrap();
    segment::IS_WITHOUT_DESCRIPTORS.set(true);
    assert!(refused(&mut spool, 1000..1100, Severity::High) > 0);
    segment::IS_WITHOUT_DESCRIPTORS.set(false);
    assert_eq!((spool.owed.len(), spool.figures().lost_ends), (0, 0));
    let bytes = files_bytes(dir.path());
    assert!(bytes <= SMALL + spool.segment_bytes(), "{bytes}");
    assert_eq!(refused(&mut spool, 1100..1120, Severity::High), 0);
    assert!(spool.is_durable() && spool.figures().bytes <= SMALL);
    assert_eq!((spool.owed.len(), spool.figures().lost_ends), (20, 0));
    assert_eq!(drain(&mut spool), all());
}

#[test]
fn ends_beyond_the_bound_are_counted_as_lost_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    for pid in 1..=100 {
        spool.append(&[ended(pid)]).unwrap();
    }
    flood(&mut spool, 1000);
    let kept = spool.owed_max();
    assert_eq!((spool.owed.len(), kept), (51, 51));
    assert_eq!(spool.figures().lost_ends, 49);
    let file = fs::metadata(dir.path().join("owed")).unwrap().len();
    assert!(file <= spool.segment_bytes(), "{file}");
    assert_eq!(drain(&mut spool), (50..=100).collect::<Vec<_>>());
}

#[derive(Debug, Clone)]
enum Step {
    /// Processes begin: their severity and the length of their evidence.
    Begin(Vec<(usize, usize)>),
    /// So many of the oldest end.
    End(usize),
    /// The collector takes so many events.
    Take(usize),
    /// No end finds room; so many times one ends and the agent is restarted.
    EndWithoutRoom(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0usize..5, 1usize..2000), 1..40).prop_map(Step::Begin),
        4 => (1usize..30).prop_map(Step::End),
        1 => (1usize..60).prop_map(Step::Take),
        1 => (1usize..4).prop_map(Step::EndWithoutRoom),
        1 => Just(Step::Reopen),
    ]
}

/// What a collector learned.
#[derive(Default)]
struct Learned {
    events: u64,
    ended: BTreeSet<u32>,
}

impl Learned {
    fn take(&mut self, spool: &mut Spool, events_max: usize) -> bool {
        let batch = spool.read_batch(0, events_max, usize::MAX);
        let Some(last) = batch.last() else {
            return false;
        };
        self.events += batch.len() as u64;
        let is_end = |event: &&v1::Event| matches!(event.event, Some(v1::event::Event::Ended(_)));
        self.ended.extend(batch.iter().filter(is_end).map(pid_of));
        spool.ack(last.sequence).unwrap();
        spool.tell_owed().unwrap();
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_end_is_told_or_counted_as_lost(steps in proptest::collection::vec(step(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), SMALL);
        let (mut began, mut gone, mut said, mut lost) = (0u32, 0u32, 0u64, 0u64);
        let mut collector = Learned::default();
        for step in steps {
            match step {
                Step::Begin(processes) => {
                    let begin = |(severity, bytes): (usize, usize)| {
                        began += 1;
                        reported(began, Severity::ALL[severity], bytes)
                    };
                    let changes: Vec<_> = processes.into_iter().map(begin).collect();
                    said += changes.len() as u64;
                    spool.append(&changes).unwrap();
                }
                Step::End(count) => {
                    let last = began.min(gone + count as u32);
                    let changes: Vec<_> = (gone + 1..=last).map(ended).collect();
                    gone = last;
                    said += changes.len() as u64;
                    spool.append(&changes).unwrap();
                }
                Step::Take(events) => {
                    collector.take(&mut spool, events);
                }
                Step::EndWithoutRoom(times) => {
                    let filled = fill(&mut spool, began + 1);
                    began += filled;
                    said += u64::from(filled);
                    for _ in 0..times {
                        gone += 1;
                        said += 1;
                        spool.append(&[ended(gone)]).unwrap();
                        lost += spool.figures().lost_ends;
                        drop(spool);
                        spool = open(dir.path(), SMALL);
                    }
                }
                Step::Reopen => {
                    lost += spool.figures().lost_ends;
                    drop(spool);
                    spool = open(dir.path(), SMALL);
                }
            }
            prop_assert!(spool.is_durable());
            prop_assert!(spool.owed.len() <= spool.owed_max());
            prop_assert!(spool.figures().bytes <= SMALL);
        }
        while collector.take(&mut spool, 50) {}
        lost += spool.figures().lost_ends;
        prop_assert_eq!(spool.owed.len(), 0);
        // Every end arrived, but for those that were lost.
        let untold = (1..=gone).filter(|pid| !collector.ended.contains(pid)).count() as u64;
        prop_assert_eq!(untold, lost);
        prop_assert!(collector.ended.iter().all(|pid| *pid <= gone));
        // What was dropped stays counted, whether it was told later or not.
        prop_assert!(collector.events + spool.figures().dropped >= said);
    }
}
