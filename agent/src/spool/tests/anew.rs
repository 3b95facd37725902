//! Findings whose report a full spool dropped: each that goes on is on the
//! collector in the end, and nothing is dropped over and over meanwhile.

use std::collections::BTreeMap;

use super::*;

const SMALL: u64 = 64 * 1024;

/// A full spool that dropped the reports of the PIDs 1 to 20.
fn dropped(dir: &Path) -> Spool {
    let mut spool = open(dir, SMALL);
    spool.append(&low()).unwrap();
    fill(&mut spool);
    assert_eq!(listed(&spool), all());
    assert!(spool.is_durable() && !spool.has_room_for_reports());
    spool
}

/// Reports of the PIDs 1 to 20.
fn low() -> Vec<Change> {
    let low = |pid| reported(pid, Severity::Low, 50);
    (1..=20).map(low).collect()
}

/// Reports findings that are worth more, until those have been dropped.
fn fill(spool: &mut Spool) {
    while spool.figures().dropped < 20 {
        let pid = 1000 + spool.figures().events as u32;
        spool.append(&[reported(pid, Severity::High, 800)]).unwrap();
    }
}

/// PIDs of which reports were dropped.
fn listed(spool: &Spool) -> Vec<u32> {
    let is_listed = |pid: &u32| spool.dropped_reports().subjects.contains(&subject(*pid));
    (1..=20).filter(is_listed).collect()
}

fn all() -> Vec<u32> {
    (1..=20).collect()
}

#[test]
fn dropped_reports_are_listed_over_restarts_until_they_are_struck_out() {
    let dir = tempfile::tempdir().unwrap();
    drop(dropped(dir.path()));
    let mut spool = open(dir.path(), SMALL);
    assert_eq!(listed(&spool), all());
    let count = spool.figures().dropped;
    spool.strike_out(&spool.dropped_reports());
    spool.append(&[]).unwrap();
    assert!(listed(&spool).is_empty());
    drop(spool);
    let mut spool = open(dir.path(), SMALL);
    assert!(listed(&spool).is_empty());
    assert_eq!(spool.figures().dropped, count);
    spool.ack(spool.newest()).unwrap();
    assert!(spool.has_room_for_reports());
}

#[test]
fn what_is_dropped_while_a_list_is_kept_stays_listed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = dropped(dir.path());
    let before = spool.dropped_reports();
    let findings: Vec<_> = (2000..2030)
        .map(|pid| reported(pid, Severity::Critical, 800))
        .collect();
    spool.append(&findings).unwrap();
    spool.strike_out(&before);
    let left = spool.dropped_reports().subjects;
    assert!(!left.is_empty() && left.is_disjoint(&before.subjects));
}

#[test]
fn a_host_is_listed_for_its_own_reporter() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    let Change::Reported(mut finding) = reported(1, Severity::Medium, 50) else {
        panic!("no report")
    };
    let boot_id = finding.subject.boot_id();
    let since = UnixMillis(7);
    finding.subject = Subject::Host { boot_id, since };
    let host = BTreeSet::from([finding.subject]);
    spool.append(&[Change::Reported(finding)]).unwrap();
    while spool.figures().dropped == 0 {
        spool.append(&[reported(9, Severity::High, 800)]).unwrap();
    }
    spool.strike_out(&spool.dropped_reports());
    assert_eq!(spool.dropped_host_reports().subjects, host);
}

#[test]
fn a_crash_between_listing_and_dropping_loses_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    spool.append(&low()).unwrap();
    let before = super::crashes::crashed(dir.path());
    fill(&mut spool);
    fs::copy(dir.path().join("owed"), before.path().join("owed")).unwrap();
    let mut spool = open(before.path(), SMALL);
    let held: Vec<u32> = contents(&mut spool).iter().map(|(_, pid)| *pid).collect();
    assert_eq!(held, all());
}

#[test]
fn a_report_that_is_dropped_before_it_reached_the_disk_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    let findings: Vec<_> = (1000..1100)
        .map(|pid| reported(pid, Severity::High, 800))
        .collect();
    spool.append(&findings).unwrap();
    let low: Vec<_> = (1..=2000)
        .map(|pid| reported(pid, Severity::Low, 50))
        .collect();
    spool.append(&low).unwrap();
    let counted = spool.figures().dropped as usize;
    assert!(spool.owed.has_unlisted && counted > spool.owed_reports_max());
    drop(spool);
    let spool = open(dir.path(), SMALL);
    assert_eq!(spool.owed.reports.len(), spool.owed_reports_max());
    assert!(spool.dropped_reports().and_more);
}

#[test]
fn while_the_disk_refuses_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let spool_dir = dir.path().join("spool");
    let mut spool = open(&spool_dir, SMALL);
    assert!(spool.has_room_for_reports());
    spool.active = None;
    fs::remove_dir_all(&spool_dir).unwrap();
    assert!(spool.append(&[ended(1)]).is_err());
    assert!(!spool.has_room_for_reports());
}

#[test]
fn a_list_that_is_lost_may_have_held_any_finding_and_says_so_until_it_is_struck_out() {
    let dir = tempfile::tempdir().unwrap();
    drop(dropped(dir.path()));
    fs::write(dir.path().join("owed"), "x").unwrap();
    drop(open(dir.path(), SMALL));
    let mut spool = open(dir.path(), SMALL);
    assert!(spool.dropped_reports().and_more);
    spool.strike_out(&spool.dropped_reports());
    spool.append(&[]).unwrap();
    drop(spool);
    let opened = open(dir.path(), SMALL);
    assert_eq!(opened.dropped_reports(), DroppedReports::default());
}

#[derive(Debug, Clone)]
enum Step {
    /// Processes begin: their severity and the length of their evidence.
    Begin(Vec<(usize, usize)>),
    /// So many of the oldest end.
    End(usize),
    /// The collector takes so many events.
    Take(usize),
    /// A scan with nothing new.
    Scan,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0usize..5, 1usize..2000), 1..40).prop_map(Step::Begin),
        3 => (1usize..30).prop_map(Step::End),
        3 => (1usize..60).prop_map(Step::Take),
        4 => Just(Step::Scan),
        2 => Just(Step::Reopen),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Never,
    Once,
    /// What was said was dropped.
    Unsaid,
}

/// A host with its reported set, and what the collector knows of it.
#[derive(Default)]
struct Host {
    began: u32,
    /// Living processes, and how they are reported.
    alive: BTreeMap<u32, (Severity, usize, Said)>,
    known: BTreeSet<u32>,
}

impl Host {
    fn begin(&mut self, severity: Severity, bytes: usize) {
        self.began += 1;
        self.alive
            .insert(self.began, (severity, bytes, Said::Never));
    }

    fn end(&mut self, count: usize, spool: &mut Spool) {
        let gone: Vec<u32> = self.alive.keys().copied().take(count).collect();
        self.alive.retain(|pid, _| !gone.contains(pid));
        let ends: Vec<_> = gone.into_iter().map(ended).collect();
        spool.append(&ends).unwrap();
    }

    fn scan(&mut self, spool: &mut Spool) {
        let dropped = spool.dropped_reports();
        for (pid, (_, _, said)) in &mut self.alive {
            let is_dropped = dropped.and_more || dropped.subjects.contains(&subject(*pid));
            if *said == Said::Once && is_dropped {
                *said = Said::Unsaid;
            }
        }
        spool.strike_out(&dropped);
        let mut pids: Vec<u32> = self.alive.keys().copied().collect();
        pids.sort_by_key(|pid| std::cmp::Reverse(self.alive[pid].0));
        for some in pids.chunks(48) {
            let has_room = spool.has_room_for_reports();
            let mut changes = Vec::new();
            for pid in some {
                let (severity, bytes, said) = self.alive.get_mut(pid).unwrap();
                if *said == Said::Never || (*said == Said::Unsaid && has_room) {
                    *said = Said::Once;
                    changes.push(reported(*pid, *severity, *bytes));
                }
            }
            spool.append(&changes).unwrap();
        }
        // What was struck out is written down by the next append, with nothing
        // to say too.
        spool.append(&[]).unwrap();
    }

    /// The collector is there, and scans go on.
    fn settle(&mut self, spool: &mut Spool) {
        for _ in 0..100 {
            let is_idle = !self.take(spool, usize::MAX);
            if is_idle
                && self
                    .known
                    .is_superset(&self.alive.keys().copied().collect())
            {
                return;
            }
            self.scan(spool);
        }
        panic!("reports are dropped over and over");
    }

    /// The collector takes events; whether there were any.
    fn take(&mut self, spool: &mut Spool, events_max: usize) -> bool {
        let batch = spool.read_batch(0, events_max, usize::MAX);
        let Some(last) = batch.last() else {
            return false;
        };
        let is_report =
            |event: &&v1::Event| matches!(event.event, Some(v1::event::Event::Finding(_)));
        self.known
            .extend(batch.iter().filter(is_report).map(pid_of));
        spool.ack(last.sequence).unwrap();
        spool.tell_owed().unwrap();
        true
    }
}

#[test]
fn more_than_can_be_listed_are_on_the_collector_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), SMALL);
    let mut host = Host::default();
    (0..1600).for_each(|_| host.begin(Severity::Low, 9));
    host.scan(&mut spool);
    assert!(spool.owed.has_unlisted);
    assert_eq!(spool.owed.reports.len(), spool.owed_reports_max());
    drop(spool);
    host.settle(&mut open(dir.path(), SMALL));
    assert_eq!(host.known.len(), 1600);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn the_collector_learns_of_every_process_that_goes_on(
        steps in proptest::collection::vec(step(), 1..16)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(dir.path(), SMALL);
        let mut host = Host::default();
        for step in steps {
            match step {
                Step::Begin(processes) => {
                    for (severity, bytes) in processes {
                        host.begin(Severity::ALL[severity], bytes);
                    }
                    host.scan(&mut spool);
                }
                Step::End(count) => host.end(count, &mut spool),
                Step::Take(events) => { host.take(&mut spool, events); }
                Step::Scan => {
                    // With nothing taken in between, the second has nothing to say.
                    host.scan(&mut spool);
                    let before = (spool.newest(), spool.figures().dropped);
                    if !spool.has_room_for_reports() {
                        host.scan(&mut spool);
                        prop_assert_eq!((spool.newest(), spool.figures().dropped), before);
                    }
                }
                Step::Reopen => {
                    drop(spool);
                    spool = open(dir.path(), SMALL);
                }
            }
            prop_assert!(spool.is_durable());
            prop_assert!(spool.owed.reports.len() <= spool.owed_reports_max());
            prop_assert!(spool.figures().bytes <= SMALL);
        }
        host.settle(&mut spool);
    }
}
