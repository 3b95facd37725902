//! Tables of time and records; and a model in which the process is killed at
//! any point and reads its journal again.

use procwarden_common::finding::{Finding, Subject};
use procwarden_common::id::{BootId, HostId};
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::alert::route::destinations;
use crate::alert::tests::{config, route};
use crate::findings::{FindingEntry, Record};
use crate::ledger::state::AlertRecord;

const NOW: UnixMillis = UnixMillis(1_795_424_400_000);
const WAIT_MILLIS: i64 = 30_000;
const RECORD_BYTES: u64 = 100;
/// Behind every record of these tests.
const END: Position = Position(u64::MAX);

fn limits(max_per_hour: u32) -> Limits {
    Limits {
        group_wait: Duration::from_millis(WAIT_MILLIS.unsigned_abs()),
        max_per_hour,
    }
}

fn later(millis: i64) -> UnixMillis {
    NOW.plus_millis(millis)
}

/// Record `index` of a journal, about the process with that PID.
fn recorded(index: u32, severity: Severity) -> Recorded {
    recorded_about(index, finding(index, severity), true)
}

fn recorded_about(index: u32, finding: Finding, alertable: bool) -> Recorded {
    let position = Position(u64::from(index) * RECORD_BYTES);
    let entry = FindingEntry {
        host_id: HostId::from_uuid(Uuid::from_u128(1)),
        host_name: "web1".to_owned(),
        received_at: NOW,
        first_seen: NOW,
        ended_at: None,
        alertable,
        previous: None,
        change: Change::Reported(Box::new(finding)),
    };
    let record = Record {
        position,
        next: Position(position.0 + RECORD_BYTES),
        payload: entry.encode(),
        facts: None,
    };
    Recorded::read(record).unwrap()
}

fn finding(pid: u32, severity: Severity) -> Finding {
    let boot_id = BootId::from_uuid(Uuid::from_u128(2));
    Finding {
        subject: Subject::Process(ProcessKey {
            boot_id,
            // No process has the PID 0.
            pid: pid + 1,
            start_time: 1,
        }),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_MEMFD,
            severity,
            evidence: String::new(),
        }],
        observed_at: NOW,
        uid: 1001,
        user: b"bob".to_vec(),
        process: None,
        host: None,
        actions: Vec::new(),
        quiet: false,
    }
}

fn id_of(index: u32) -> FindingId {
    let host = HostId::from_uuid(Uuid::from_u128(1));
    finding(index, Severity::High)
        .subject
        .finding_id(Some(host))
}

fn everyone() -> Vec<Destination> {
    destinations(&config(&["ops@x"], &[]))
}

/// High findings go to both, low ones to `log@x` only.
fn two_destinations() -> Vec<Destination> {
    let routes = [
        route(&[], Severity::High, &["boss@x"]),
        route(&[], Severity::Info, &["log@x"]),
    ];
    destinations(&config(&[], &routes))
}

/// What the ledger makes of an entry.
fn apply(state: &mut AlertState, at: UnixMillis, entry: &v1::AlertsQueued) {
    state.upto = state.upto.max(Position(entry.upto_position));
    for alert in &entry.alerts {
        let number = u64::try_from(state.alerts.len()).unwrap();
        let ids = alert
            .finding_ids
            .iter()
            .map(|id| FindingId::from_slice(id).unwrap());
        let record = AlertRecord {
            id: alert.id.as_ref().try_into().unwrap(),
            to: alert.to.clone(),
            finding_ids: ids.collect(),
            queued_at: at,
            sent_at: None,
            expiring: Vec::new(),
        };
        state.alerts.insert(number, record);
    }
}

fn consider(grouper: &mut Grouper, at: UnixMillis, index: u32, severity: Severity) {
    grouper.consider(at, limits(60), &recorded(index, severity), &[], &everyone());
}

fn findings_of(entry: &v1::AlertsQueued) -> Vec<usize> {
    entry
        .alerts
        .iter()
        .map(|alert| alert.finding_ids.len())
        .collect()
}

#[test]
fn the_findings_of_one_window_are_one_alert() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    consider(&mut grouper, NOW, 0, Severity::High);
    consider(&mut grouper, later(29_000), 1, Severity::Medium);
    assert_eq!(grouper.due_at(NOW, limits(60)), Some(later(WAIT_MILLIS)));
    assert_eq!(grouper.close_due(later(29_999), limits(60)), None);
    let entry = grouper.close_due(later(WAIT_MILLIS), limits(60)).unwrap();
    assert_eq!(findings_of(&entry), [2]);
    assert_eq!(entry.upto_position, 2 * RECORD_BYTES);
    assert_eq!(grouper.close_due(later(WAIT_MILLIS), limits(60)), None);
    assert_eq!(grouper.due_at(NOW, limits(60)), None);
}

#[test]
fn what_is_not_alertable_or_not_severe_enough_opens_no_window() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    let known = recorded_about(0, finding(0, Severity::High), false);
    grouper.consider(NOW, limits(60), &known, &[], &everyone());
    consider(&mut grouper, NOW, 1, Severity::Low);
    assert_eq!(grouper.due_at(NOW, limits(60)), None);
    assert_eq!(grouper.finish().unwrap().upto_position, 2 * RECORD_BYTES);
    assert_eq!(grouper.finish(), None);
}

#[test]
fn a_finding_that_grows_within_its_window_is_named_once() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    consider(&mut grouper, NOW, 0, Severity::Medium);
    let grown = recorded_about(1, finding(0, Severity::High), true);
    grouper.consider(NOW, limits(60), &grown, &[], &everyone());
    let entry = grouper.close_due(later(WAIT_MILLIS), limits(60)).unwrap();
    assert_eq!(findings_of(&entry), [1]);
    assert_eq!(entry.upto_position, 2 * RECORD_BYTES);
}

#[test]
fn windows_of_several_destinations_close_together() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    let both = two_destinations();
    grouper.consider(NOW, limits(60), &recorded(0, Severity::Low), &[], &both);
    grouper.consider(
        later(10_000),
        limits(60),
        &recorded(1, Severity::High),
        &[],
        &both,
    );
    let entry = grouper.close_due(later(WAIT_MILLIS), limits(60)).unwrap();
    let to: Vec<&str> = entry
        .alerts
        .iter()
        .flat_map(|a| &a.to)
        .map(String::as_str)
        .collect();
    assert_eq!(to, ["boss@x", "log@x"]);
    assert_eq!(findings_of(&entry), [1, 2]);
}

#[test]
fn beyond_the_hourly_limit_findings_wait_for_one_larger_mail() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    let mut at = NOW;
    for index in 0..2 {
        grouper.consider(
            at,
            limits(2),
            &recorded(index, Severity::High),
            &[],
            &everyone(),
        );
        at = at.plus_millis(WAIT_MILLIS);
        assert!(grouper.close_due(at, limits(2)).is_some());
    }
    for index in 2..5 {
        grouper.consider(
            at,
            limits(2),
            &recorded(index, Severity::High),
            &[],
            &everyone(),
        );
        at = at.plus_millis(WAIT_MILLIS);
        assert_eq!(grouper.close_due(at, limits(2)), None);
    }
    let allowed = later(WAIT_MILLIS + HOUR_MILLIS);
    assert_eq!(grouper.due_at(at, limits(2)), Some(allowed));
    assert_eq!(
        findings_of(&grouper.close_due(allowed, limits(2)).unwrap()),
        [3]
    );
}

#[test]
fn a_held_destination_holds_up_no_other_and_survives_a_crash() {
    let both = two_destinations();
    let mut state = AlertState::default();
    let mut grouper = Grouper::resume(&state, END);
    let mut at = NOW;
    // `log@x` uses up its one mail, then both get something.
    for (index, severity) in [(0, Severity::Low), (1, Severity::High), (2, Severity::High)] {
        grouper.consider(at, limits(1), &recorded(index, severity), &[], &both);
        at = at.plus_millis(WAIT_MILLIS);
        while let Some(entry) = grouper.close_due(at, limits(1)) {
            apply(&mut state, at, &entry);
        }
    }
    let to: Vec<&str> = state.alerts.values().map(|a| a.to[0].as_str()).collect();
    assert_eq!(to, ["log@x", "boss@x"]);
    assert_eq!(
        state.upto,
        Position(RECORD_BYTES),
        "finding 1 waits for log@x"
    );

    let mut grouper = Grouper::resume(&state, END);
    for index in 1..3 {
        grouper.consider(at, limits(1), &recorded(index, Severity::High), &[], &both);
    }
    while let Some(entry) = grouper.close_due(at.plus_millis(HOUR_MILLIS), limits(1)) {
        apply(&mut state, at, &entry);
    }
    let got: Vec<(&str, usize)> = state
        .alerts
        .values()
        .map(|a| (a.to[0].as_str(), a.finding_ids.len()))
        .collect();
    assert_eq!(
        got,
        [("log@x", 1), ("boss@x", 1), ("boss@x", 1), ("log@x", 2)]
    );
}

#[test]
fn a_journal_that_was_lost_silences_no_alert() {
    let mut state = AlertState::default();
    let mut grouper = Grouper::resume(&state, END);
    consider(&mut grouper, NOW, 50, Severity::High);
    let entry = grouper.close_due(later(WAIT_MILLIS), limits(60)).unwrap();
    apply(&mut state, NOW, &entry);
    assert!(state.upto > Position(0));

    let mut grouper = Grouper::resume(&state, Position(0));
    let at = later(2 * WAIT_MILLIS);
    consider(&mut grouper, at, 1, Severity::High);
    let entry = grouper.close_due(at.plus_millis(WAIT_MILLIS), limits(60));
    let entry = entry.expect("an alert");
    assert_eq!(findings_of(&entry), [1]);
    assert!(entry.upto_position < state.upto.0, "the cursor begins anew");
}

#[test]
fn the_same_window_read_again_gives_the_same_id() {
    let ids: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let mut grouper = Grouper::resume(&AlertState::default(), END);
            consider(&mut grouper, NOW, 3, Severity::High);
            consider(&mut grouper, NOW, 4, Severity::High);
            let entry = grouper.close_due(later(WAIT_MILLIS), limits(60)).unwrap();
            entry.alerts[0].id.to_vec()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
    let id: [u8; 16] = ids[0].as_slice().try_into().unwrap();
    assert_eq!(AlertId::upto(&id), Position(5 * RECORD_BYTES));
}

#[test]
fn a_full_window_closes_at_once() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    for index in 0..u32::try_from(ALERT_FINDINGS_MAX).unwrap() {
        assert_eq!(grouper.close_due(NOW, limits(60)), None);
        consider(&mut grouper, NOW, index, Severity::High);
    }
    assert_eq!(grouper.due_at(NOW, limits(60)), Some(NOW));
    let entry = grouper.close_due(NOW, limits(60)).unwrap();
    assert_eq!(findings_of(&entry), [ALERT_FINDINGS_MAX]);
}

#[test]
fn a_clock_that_was_set_back_keeps_no_window_open() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    consider(&mut grouper, NOW, 0, Severity::High);
    let earlier = later(-86_400_000);
    assert_eq!(grouper.due_at(earlier, limits(60)), Some(earlier));
    assert!(grouper.close_due(earlier, limits(60)).is_some());
}

#[test]
fn the_cursor_is_written_when_it_lags_far_behind() {
    let mut grouper = Grouper::resume(&AlertState::default(), END);
    let mut far = recorded(0, Severity::Info);
    far.next = Position(CURSOR_LAG_BYTES_MAX);
    grouper.consider(NOW, limits(60), &far, &[], &everyone());
    assert_eq!(grouper.catch_up(), None);
    far.next = Position(CURSOR_LAG_BYTES_MAX + 1);
    grouper.consider(NOW, limits(60), &far, &[], &everyone());
    assert_eq!(
        grouper.catch_up().unwrap().upto_position,
        CURSOR_LAG_BYTES_MAX + 1
    );
    assert_eq!(grouper.catch_up(), None);
}

/// What happens to the process of the model.
#[derive(Debug, Clone)]
enum Event {
    /// The next record is read; high or low.
    Record { high: bool },
    /// Time passes, and due windows are closed.
    Wait { millis: i64 },
    /// Killed: what was not in the ledger is read again.
    Crash,
    /// Stopped in order, and started.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => any::<bool>().prop_map(|high| Event::Record { high }),
        6 => (0..2 * WAIT_MILLIS).prop_map(|millis| Event::Wait { millis }),
        1 => (0..2 * HOUR_MILLIS).prop_map(|millis| Event::Wait { millis }),
        2 => Just(Event::Crash),
        1 => Just(Event::Restart),
    ]
}

struct Model {
    now: UnixMillis,
    limits: Limits,
    destinations: Vec<Destination>,
    journal: Vec<Recorded>,
    state: AlertState,
    grouper: Grouper,
}

impl Model {
    fn step(&mut self, event: &Event) {
        match event {
            Event::Record { high } => {
                let index = u32::try_from(self.journal.len()).unwrap();
                let severity = if *high { Severity::High } else { Severity::Low };
                self.journal.push(recorded(index, severity));
                self.read(self.journal.len() - 1);
            }
            Event::Wait { millis } => self.now = self.now.plus_millis(*millis),
            Event::Crash => self.resume(),
            Event::Restart => {
                if let Some(entry) = self.grouper.finish() {
                    apply(&mut self.state, self.now, &entry);
                }
                self.resume();
            }
        }
        self.close();
    }

    fn read(&mut self, index: usize) {
        let record = &self.journal[index];
        self.grouper
            .consider(self.now, self.limits, record, &[], &self.destinations);
    }

    fn close(&mut self) {
        while let Some(entry) = self.grouper.close_due(self.now, self.limits) {
            apply(&mut self.state, self.now, &entry);
        }
    }

    fn resume(&mut self) {
        self.grouper = Grouper::resume(&self.state, END);
        let upto = self.state.upto;
        for index in 0..self.journal.len() {
            if self.journal[index].position >= upto {
                self.read(index);
                self.close();
            }
        }
    }

    /// How many alerts to `to` name record `index`.
    fn alerts_naming(&self, to: &str, index: usize) -> usize {
        let id = id_of(u32::try_from(index).unwrap());
        let alerts = self.state.alerts.values();
        alerts
            .filter(|a| a.to == [to] && a.finding_ids.contains(&id))
            .count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_finding_is_in_exactly_one_alert_per_destination(
        events in proptest::collection::vec(event(), 0..80), max_per_hour in 1_u32..5,
    ) {
        let state = AlertState::default();
        let mut model = Model {
            now: NOW,
            limits: limits(max_per_hour),
            destinations: two_destinations(),
            journal: Vec::new(),
            grouper: Grouper::resume(&state, END),
            state,
        };
        for event in &events {
            model.step(event);
        }
        model.step(&Event::Wait { millis: 2 * HOUR_MILLIS });
        for (index, record) in model.journal.iter().enumerate() {
            let for_boss = usize::from(record.severity() == Some(Severity::High));
            prop_assert_eq!(model.alerts_naming("log@x", index), 1);
            prop_assert_eq!(model.alerts_naming("boss@x", index), for_boss);
        }
        let mut ids: Vec<[u8; 16]> = model.state.alerts.values().map(|a| a.id).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), model.state.alerts.len(), "alert ids are unique");
        for alert in model.state.alerts.values() {
            let within_hour = model.state.alerts.values().filter(|other| {
                other.to == alert.to
                    && other.queued_at <= alert.queued_at
                    && other.queued_at.plus_millis(HOUR_MILLIS) > alert.queued_at
            });
            prop_assert!(within_hour.count() <= usize::try_from(max_per_hour).unwrap());
        }
    }
}
