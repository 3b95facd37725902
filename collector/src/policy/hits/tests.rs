//! Sums over hosts, and what hostile agents can do to them.

use procwarden_common::finding::{Finding, ProcessFacts, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::{Cmdline, ProcessKey};
use procwarden_common::severity::Severity;

use super::*;
use crate::tls::testing::host_id;

const NOW: UnixMillis = UnixMillis(1_000_000);

impl RuleHits {
    /// How many of the hosts that count have said all that their rules
    /// ignored.
    fn told_all(&self, counts: impl Fn(HostId) -> bool) -> usize {
        let hosts: Vec<HostId> = self.lock().hosts.keys().copied().collect();
        let told = |host: &&HostId| counts(**host) && self.has_told_all(**host);
        hosts.iter().filter(told).count()
    }
}

fn rule(number: u32) -> RuleId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    RuleId::from_slice(&bytes).unwrap()
}

fn finding(pid: u32, severity: Severity, cmdline_bytes: usize) -> v1::Finding {
    let finding = Finding {
        subject: Subject::Process(ProcessKey {
            boot_id: BootId::from_slice(&[1; 16]).unwrap(),
            pid,
            start_time: 1,
        }),
        indicators: vec![Indicator {
            id: IndicatorId::EXE_DELETED,
            severity,
            evidence: "words".into(),
        }],
        observed_at: UnixMillis(pid.into()),
        uid: 1000,
        user: b"ali\x1b[2Jce".to_vec(),
        process: Some(ProcessFacts {
            cmdline: Cmdline {
                raw: vec![b'x'; cmdline_bytes],
                truncated: false,
            },
            ..ProcessFacts::default()
        }),
        host: None,
        actions: Vec::new(),
        quiet: false,
    };
    v1::Finding::from(&finding)
}

fn hits(number: u32, processes: u64, last: i64, samples: Vec<v1::Finding>) -> v1::RuleHits {
    v1::RuleHits {
        rule_id: rule(number).as_bytes().to_vec().into(),
        processes,
        severe: 1,
        first_ms: 1,
        last_ms: last,
        last_severe_ms: 0,
        samples,
        fresh: 0,
        worst_fresh: 0,
        fresh_of_samples: Vec::new(),
    }
}

fn sum_of(table: &RuleHits, number: u32) -> RuleSum {
    table.of_rules(&[rule(number)], |_| true).remove(0)
}

#[test]
fn counts_of_hosts_add_up_and_the_worst_samples_come_first() {
    let table = RuleHits::default();
    let low = vec![finding(1, Severity::Low, 5), finding(2, Severity::Low, 5)];
    table.take(host_id(1), true, vec![hits(7, 3, 100, low)], NOW);
    let high = vec![finding(3, Severity::High, 5)];
    table.take(host_id(2), true, vec![hits(7, 4, 90, high)], NOW);
    table.take(host_id(3), true, vec![hits(8, 50, 95, vec![])], NOW);
    let sum = sum_of(&table, 7);
    assert_eq!((sum.processes, sum.severe, sum.hosts), (7, 2, 2));
    assert_eq!(sum.last, Some(UnixMillis(100)));
    assert_eq!(sum.host_ids, [host_id(1), host_id(2)]);
    let pids: Vec<i64> = sum
        .samples
        .iter()
        .map(|s| s.finding.observed_at.0)
        .collect();
    assert_eq!(pids, [3, 2, 1]);
    assert_eq!(sum.samples[0].host, host_id(2));
    assert_eq!(sum_of(&table, 9).hosts, 0);
}

#[test]
fn the_answer_is_in_the_order_of_the_question() {
    let table = RuleHits::default();
    table.take(
        host_id(1),
        true,
        vec![hits(1, 10, 1, vec![]), hits(2, 20, 1, vec![])],
        NOW,
    );
    let asked = [rule(2), rule(5), rule(1), rule(2)];
    let sums = table.of_rules(&asked, |_| true);
    let processes: Vec<u64> = sums.iter().map(|sum| sum.processes).collect();
    assert_eq!(processes, [20, 0, 10, 20]);
}

#[test]
fn a_change_replaces_and_a_new_stream_begins_anew() {
    let table = RuleHits::default();
    table.take(
        host_id(1),
        true,
        vec![hits(1, 10, 1, vec![]), hits(2, 20, 1, vec![])],
        NOW,
    );
    table.take(host_id(1), false, vec![hits(1, 11, 2, vec![])], NOW);
    assert_eq!(
        (sum_of(&table, 1).processes, sum_of(&table, 2).processes),
        (11, 20)
    );
    // Its state directory was lost: it has nothing to say.
    table.take(host_id(1), true, vec![], NOW);
    assert_eq!(
        (sum_of(&table, 1).processes, sum_of(&table, 2).processes),
        (0, 0)
    );
    assert_eq!(
        (table.told_all(|_| true), table.too_low(|_| true)),
        (1, false)
    );
}

#[test]
fn a_host_that_needs_several_heartbeats_has_told_all_with_the_last() {
    let table = RuleHits::default();
    let full = || vec![hits(1, 10, 1, vec![finding(1, Severity::Low, 60_000)])];
    let told = || table.told_all(|_| true);
    table.take(host_id(1), true, full(), NOW);
    assert_eq!(told(), 0, "there may be more");
    table.take(host_id(1), false, full(), NOW);
    assert_eq!(told(), 0);
    table.take(host_id(1), false, vec![], NOW);
    assert_eq!(told(), 1, "there was no more");
    table.take(host_id(1), false, full(), NOW);
    assert_eq!(told(), 1, "what changes since is news");
    assert_eq!(table.told_all(|host| host == host_id(2)), 0);
    table.take(host_id(1), true, full(), NOW);
    assert_eq!(told(), 0, "a new stream begins anew");
}

#[test]
fn hosts_that_do_not_count_or_are_forgotten_add_nothing() {
    let table = RuleHits::default();
    for host in [1, 2] {
        table.take(
            host_id(host),
            true,
            vec![hits(1, 10, 1, vec![finding(1, Severity::Low, 9)])],
            NOW,
        );
    }
    let only_one = table
        .of_rules(&[rule(1)], |host| host == host_id(1))
        .remove(0);
    assert_eq!((only_one.hosts, only_one.samples.len()), (1, 1));
    table.forget(host_id(1));
    table.forget(host_id(2));
    assert_eq!(sum_of(&table, 1).hosts, 0);
    let table = table.lock();
    assert_eq!((table.rules, table.sample_bytes), (0, 0));
}

#[test]
fn hosts_where_a_rule_ignored_nothing_lately_are_left_out() {
    let table = RuleHits::default();
    table.take(host_id(1), true, vec![hits(1, 10, 100, vec![])], NOW);
    table.take(host_id(2), true, vec![hits(1, 20, 200, vec![])], NOW);
    let since = |millis| {
        let sums = table.of_rules_since(&[rule(1)], UnixMillis(millis), |_| true);
        (sums[0].processes, sums[0].hosts)
    };
    assert_eq!(
        [since(100), since(101), since(201)],
        [(30, 2), (20, 1), (0, 0)]
    );
}

#[test]
fn a_hostile_host_stays_within_its_bounds() {
    let table = RuleHits::default();
    let samples = || vec![finding(1, Severity::Critical, 30_000); 10];
    for round in 0..5_u32 {
        let messages = (0..1_000).map(|n| hits(round * 1_000 + n, u64::MAX, i64::MAX, samples()));
        table.take(host_id(1), false, messages.collect(), NOW);
    }
    let nonsense = v1::RuleHits {
        rule_id: vec![1; 99].into(),
        samples: vec![v1::Finding::default()],
        ..v1::RuleHits::default()
    };
    table.take(host_id(1), false, vec![nonsense; 3], NOW);
    assert_eq!(
        (table.told_all(|_| true), table.too_low(|_| true)),
        (1, true),
        "what was left out is told"
    );
    let sum = sum_of(&table, 0);
    assert_eq!((sum.processes, sum.severe), (u64::MAX, 1));
    assert_eq!(sum.last, Some(NOW), "no host ignores in the future");
    let locked = table.lock();
    assert_eq!(locked.rules, HOST_RULES_MAX);
    assert!(locked.sample_bytes <= HOST_SAMPLE_BYTES_MAX);
    drop(locked);
    // Another host's counts cannot overflow the sum.
    table.take(host_id(2), true, vec![hits(0, u64::MAX, 1, vec![])], NOW);
    assert_eq!(sum_of(&table, 0).processes, u64::MAX);
}

#[test]
fn samples_are_cut_where_an_agent_should_have_cut_them() {
    let table = RuleHits::default();
    let mut sample = finding(1, Severity::Low, 30_000);
    sample.indicators[0].evidence = "e".repeat(1_000);
    table.take(host_id(1), true, vec![hits(1, 1, 1, vec![sample])], NOW);
    let sum = sum_of(&table, 1);
    let kept = &sum.samples[0].finding;
    assert_eq!(kept.indicators[0].evidence, "");
    let cmdline = &kept.process.as_ref().unwrap().cmdline;
    assert!(cmdline.raw.len() <= 1_024 && cmdline.truncated);
}
