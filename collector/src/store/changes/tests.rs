//! Histories as dedup lets them into the journal, against what the index makes
//! of them.

use std::cell::RefCell;
use std::collections::HashMap;

use procwarden_common::clock::UnixMillis;
use procwarden_common::finding::{Ended, Finding, ProcessFacts, Subject};
use procwarden_common::id::BootId;
use procwarden_common::indicator::Indicator;
use procwarden_common::process::ProcessKey;
use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::dedup::{Decision, Known, decide};

type Entries = RefCell<BTreeMap<Vec<u8>, Vec<u8>>>;

/// What a host sends: host, process, indicator (none ends it), severity.
type Step = (u8, u8, Option<u8>, usize);

fn change(time: i64, (_, pid, indicator, severity): Step) -> Change {
    let boot_id = BootId::from_uuid(Uuid::nil());
    let subject = Subject::Process(ProcessKey {
        boot_id,
        pid: u32::from(pid) + 1,
        start_time: 1,
    });
    let Some(indicator) = indicator else {
        return Change::Ended(Ended {
            subject,
            ended_at: UnixMillis(time),
        });
    };
    let indicator = Indicator {
        id: format!("i{indicator}").parse().unwrap(),
        severity: Severity::ALL[severity],
        evidence: String::new(),
    };
    Change::Reported(Box::new(Finding {
        subject,
        indicators: vec![indicator],
        observed_at: UnixMillis(time),
        uid: 1,
        user: b"u".to_vec(),
        process: Some(ProcessFacts::default()),
    }))
}

/// The records that a history leaves in the journal.
fn records(steps: &[Step]) -> Vec<(Position, FindingEntry)> {
    let mut known: HashMap<FindingId, Known> = HashMap::new();
    let mut records = Vec::new();
    for (time, step) in (1i64..).zip(steps) {
        let host_id = HostId::from_uuid(Uuid::from_u128(u128::from(step.0)));
        let (change, received_at) = (change(time, *step), UnixMillis(time));
        let id = crate::findings::finding_id(host_id, &change);
        if let Decision::Record {
            change,
            alertable,
            known: now,
        } = decide(known.get(&id), change, received_at)
        {
            let (first_seen, ended_at) = (now.first_seen, now.ended_at);
            known.insert(id, now);
            let host_name = format!("h{time}");
            let entry = FindingEntry {
                host_id,
                host_name,
                received_at,
                first_seen,
                ended_at,
                alertable,
                change,
            };
            let entry = FindingEntry::decode(entry.encode()).unwrap();
            records.push((Position(time.cast_unsigned() * 10), entry));
        }
    }
    records
}

fn write(entries: &Entries, meta: Meta, change: impl FnOnce(&mut Changes<'_>)) -> Meta {
    let read = |key: &[u8]| Ok(entries.borrow().get(key).cloned());
    let mut changes = Changes::new(&read, meta);
    change(&mut changes);
    let (meta, writes) = changes.finish(Position(1));
    for (key, value) in writes {
        match value {
            Some(value) => entries.borrow_mut().insert(key, value),
            None => entries.borrow_mut().remove(&key),
        };
    }
    meta
}

fn apply(entries: &Entries, meta: Meta, records: &[(Position, FindingEntry)]) -> Meta {
    write(entries, meta, |changes| {
        for (position, entry) in records {
            changes.apply(*position, entry.clone()).unwrap();
        }
    })
}

/// What [`Meta`] should say, from the entries alone.
fn recount(entries: &Entries, meta: Meta) -> Meta {
    let mut seen = Meta {
        findings: 0,
        open: 0,
        sum: 0,
        ..meta
    };
    let (mut listed, mut per_host) = (0, 0);
    for (key, value) in entries.borrow().iter().filter(|(key, _)| *key != key::META) {
        seen.sum = seen.sum.wrapping_add(schema::mark(key, value));
        match key[0] {
            b'f' => {
                seen.findings += 1;
                let stored = decode(key, value).unwrap();
                seen.open += u64::from(stored.state == FindingState::Open);
            }
            b'o' => per_host += decode_count(key, value).unwrap(),
            _ => listed += 1,
        }
    }
    assert_eq!((listed, per_host), (2 * seen.findings, seen.open));
    seen
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let indicator = proptest::option::weighted(0.7, 0u8..3);
    proptest::collection::vec((0u8..3, 0u8..3, indicator, 0usize..5), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn counts_and_listings_agree_and_a_replay_changes_nothing(
        steps in steps(),
        split in any::<prop::sample::Index>(),
    ) {
        let (entries, records) = (Entries::default(), records(&steps));
        let split = split.index(records.len() + 1);
        let meta = apply(&entries, Meta::new(1), &records[..split]);
        prop_assert_eq!(recount(&entries, meta), meta);
        let meta = apply(&entries, meta, &records[split..]);
        prop_assert_eq!(recount(&entries, meta), meta);
        let before = entries.borrow().clone();
        let again = apply(&entries, meta, &records);
        prop_assert_eq!((&*entries.borrow(), again), (&before, meta));
    }

    #[test]
    fn what_retention_leaves_is_what_a_rebuild_from_the_rest_gives(
        steps in steps(),
        split in any::<prop::sample::Index>(),
    ) {
        let (live, records) = (Entries::default(), records(&steps));
        let (dropped, kept) = records.split_at(split.index(records.len() + 1));
        let before = kept.first().map_or(Position(u64::MAX), |(position, _)| *position);
        let meta = apply(&live, Meta::new(1), &records);
        let meta = write(&live, meta, |changes| {
            for (_, entry) in dropped {
                changes.forget(entry.id(), before).unwrap();
            }
        });
        prop_assert_eq!(recount(&live, meta), meta);
        let rebuilt = Entries::default();
        prop_assert_eq!(apply(&rebuilt, Meta::new(1), kept), meta);
        prop_assert_eq!(&*rebuilt.borrow(), &*live.borrow());
    }
}
