//! Counting over several scans, what is sent of it, and what the disk keeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use procwarden_common::indicator::IndicatorId;
use procwarden_common::wire::severity_to_wire;

use super::file::HitsFile;
use super::*;
use crate::detect::sample;
use crate::reported::tests::{account, ignored_by, process, scan, suspect};

const LOW: (IndicatorId, Severity) = (IndicatorId::UNEXPECTED_LISTENER, Severity::Low);
const HIGH: (IndicatorId, Severity) = (IndicatorId::EXE_MEMFD, Severity::High);

fn hidden(user: &str, pid: u32, indicator: &(IndicatorId, Severity)) -> Suspect {
    let mut suspect = suspect(process(1, pid), std::slice::from_ref(indicator));
    suspect.process = Some(Arc::new(sample::of_account(1, b"u")));
    // Every process looks different.
    suspect.bare.user = format!("u{pid}").into_bytes();
    ignored_by(user, suspect)
}

fn noted(scans: Vec<ScanOutcome>) -> Hits {
    let mut hits = Hits::default();
    scans.iter().for_each(|outcome| hits.note(outcome));
    hits
}

/// Processes and severe ones of the only rule.
fn only(hits: &Hits) -> (u64, u64) {
    let (all, _) = hits.changed_after(0, usize::MAX);
    assert_eq!(all.len(), 1);
    (all[0].processes, all[0].severe)
}

#[test]
fn a_process_counts_once_while_it_lives() {
    let again = |at| scan(at, &[5], vec![hidden("u", 5, &LOW)]);
    assert_eq!(only(&noted(vec![again(1), again(2), again(3)])), (1, 0));
    // It shows nothing for a while, but it is the same process.
    let hits = noted(vec![again(1), scan(2, &[5], vec![]), again(3)]);
    assert_eq!(only(&hits), (1, 0));
    // It ended; whoever has its PID later is somebody else.
    let hits = noted(vec![again(1), scan(2, &[6], vec![]), again(3)]);
    assert_eq!(only(&hits), (2, 0));
}

/// A roll-out that is tried again has to see what it hides again.
#[test]
fn a_rule_that_hides_again_what_was_reported_meanwhile_says_so() {
    let mut reported = hidden("u", 5, &HIGH);
    reported.verdict = Verdict::Report;
    let hidden = || vec![hidden("u", 5, &HIGH)];
    let hits = noted(vec![
        scan(1, &[5], hidden()),
        scan(2, &[5], vec![reported]),
        scan(3, &[5], hidden()),
        scan(4, &[5], hidden()),
    ]);
    let (all, _) = hits.changed_after(0, usize::MAX);
    assert_eq!(
        (all[0].processes, all[0].severe),
        (1, 1),
        "still one process"
    );
    assert_eq!(all[0].last_severe_ms, 3);
    assert!(hits.lapsed.is_empty());
}

/// What another rule hid until now is nothing that a roll-out newly hides.
#[test]
fn a_rule_that_takes_over_what_another_one_hid_counts_it_without_news_of_its_severity() {
    let last_severe = |scans| {
        let (all, _) = noted(scans).changed_after(0, usize::MAX);
        let counts = all
            .iter()
            .map(|rule| (rule.processes, rule.severe, rule.last_severe_ms));
        counts.collect::<Vec<_>>()
    };
    let by = |user: &str, at| scan(at, &[5], vec![hidden(user, 5, &HIGH)]);
    assert_eq!(
        last_severe(vec![by("u", 1), by("v", 2)]),
        [(1, 1, 1), (1, 1, 0)]
    );
    // Back again: still hidden all the time.
    assert_eq!(
        last_severe(vec![by("u", 1), by("v", 2), by("u", 3)]),
        [(1, 1, 0), (1, 1, 1)]
    );
    let mut reported = hidden("u", 5, &HIGH);
    reported.verdict = Verdict::Report;
    let seen = scan(2, &[5], vec![reported]);
    assert_eq!(
        last_severe(vec![by("u", 1), seen, by("v", 3)]),
        [(1, 1, 1), (1, 1, 3)]
    );
}

/// Four processes are taken over in the scan in which another is newly hidden.
#[test]
fn what_is_newly_hidden_keeps_its_sample_among_what_is_taken_over() {
    let pids = [5, 6, 7, 8, 9];
    let others = |user: &str| {
        pids[1..]
            .iter()
            .map(|pid| hidden(user, *pid, &HIGH))
            .collect()
    };
    let mut taken_over: Vec<Suspect> = others("u");
    let mut all = vec![hidden("v", 5, &HIGH)];
    all.append(&mut others("v"));
    let hits = noted(vec![
        scan(1, &pids, taken_over.split_off(0)),
        scan(2, &pids, all),
    ]);
    let (rules, _) = hits.changed_after(0, usize::MAX);
    let rule = rules.iter().find(|rule| rule.fresh == 1).unwrap();
    assert_eq!(rule.worst_fresh(), severity_to_wire(Severity::High));
    let users: Vec<_> = rule
        .samples
        .iter()
        .map(|sample| sample.user.clone())
        .collect();
    let of_fresh = rule.fresh_of_samples.iter().position(|fresh| *fresh == 1);
    assert_eq!(users[of_fresh.unwrap()], &b"u5"[..]);
}

#[test]
fn a_look_between_two_scans_counts_and_ends_nobody() {
    let mut hits = noted(vec![scan(1, &[5, 6], vec![hidden("u", 5, &LOW)])]);
    hits.note_looked(&[hidden("u", 6, &LOW)], UnixMillis(2));
    hits.note(&scan(
        3,
        &[5, 6],
        vec![hidden("u", 5, &LOW), hidden("u", 6, &LOW)],
    ));
    assert_eq!(only(&hits), (2, 0));
}

#[test]
fn what_is_reported_is_no_hit_and_an_empty_scan_ends_nothing() {
    let shown = suspect(process(1, 5), &[HIGH]);
    assert_eq!(noted(vec![scan(1, &[5], vec![shown])]), Hits::default());
    let again = || scan(1, &[5], vec![hidden("u", 5, &LOW)]);
    assert_eq!(
        only(&noted(vec![again(), scan(2, &[], vec![]), again()])),
        (1, 0)
    );
}

#[test]
fn a_process_that_becomes_severe_counts_as_severe_once() {
    let low = || scan(1, &[5], vec![hidden("u", 5, &LOW)]);
    let high = || scan(2, &[5], vec![hidden("u", 5, &HIGH)]);
    let hits = noted(vec![low(), high(), low(), high()]);
    assert_eq!(only(&hits), (1, 1));
}

#[test]
fn an_account_counts_once_per_episode() {
    let over = |at| {
        let suspect = suspect(account(33, at), &[LOW]);
        scan(at, &[1], vec![ignored_by("u", suspect)])
    };
    assert_eq!(only(&noted(vec![over(1), over(2)])), (1, 0));
    assert_eq!(
        only(&noted(vec![over(1), scan(2, &[1], vec![]), over(3)])),
        (2, 0)
    );
}

#[test]
fn only_changes_are_sent_and_going_on_is_one_once_an_hour() {
    let mut hits = Hits::default();
    let at = |millis| scan(millis, &[5], vec![hidden("u", 5, &LOW)]);
    hits.note(&at(1_000));
    let (first, version) = hits.changed_after(0, usize::MAX);
    assert_eq!((first.len(), first[0].last_ms), (1, 1_000));
    hits.note(&at(61_000));
    assert!(hits.changed_after(version, usize::MAX).0.is_empty());
    hits.note(&at(3_601_000));
    let (again, version) = hits.changed_after(version, usize::MAX);
    assert_eq!((again[0].processes, again[0].last_ms), (1, 3_601_000));
    assert!(hits.changed_after(version, usize::MAX).0.is_empty());
}

#[test]
fn a_message_is_bounded_and_the_next_one_goes_on() {
    let rules = 50;
    let suspects = (0..rules).map(|n| hidden(&format!("rule{n}"), n + 1, &LOW));
    let pids: Vec<u32> = (1..=rules).collect();
    let hits = noted(vec![scan(1, &pids, suspects.collect())]);
    let (mut version, mut seen, mut messages) = (0, HashSet::new(), 0);
    loop {
        let (some, upto) = hits.changed_after(version, 1_000);
        if some.is_empty() {
            break;
        }
        assert!(some.iter().map(prost::Message::encoded_len).sum::<usize>() <= 1_000);
        seen.extend(some.into_iter().map(|rule| rule.rule_id));
        version = upto;
        messages += 1;
    }
    assert_eq!(seen.len(), 50);
    assert!(messages > 2, "{messages}");
}

#[test]
fn samples_are_the_newest_and_the_most_severe_each_look_once() {
    let mut hits = Hits::default();
    for (pid, indicator) in [(1, &HIGH), (2, &LOW), (3, &LOW), (4, &LOW)] {
        hits.note(&scan(pid.into(), &[pid], vec![hidden("u", pid, indicator)]));
    }
    let users = |hits: &Hits| -> Vec<String> {
        let samples = hits.changed_after(0, usize::MAX).0.remove(0).samples;
        let user = |s: &v1::Finding| String::from_utf8(s.user.to_vec()).unwrap();
        samples.iter().map(user).collect()
    };
    assert_eq!(users(&hits), ["u1", "u3", "u4"]);
    // A process that looks like one of them takes its place.
    let mut twin = hidden("u", 9, &LOW);
    twin.bare.user = b"u3".to_vec();
    hits.note(&scan(9, &[9], vec![twin]));
    assert_eq!(users(&hits), ["u1", "u4", "u3"]);
}

#[test]
fn a_flood_stays_within_bounds() {
    let mut hits = Hits::default();
    let rules = u32::try_from(RULES_MAX).unwrap() + 100;
    let pids: Vec<u32> = (1..=rules).collect();
    let suspects = pids.iter().map(|pid| {
        let mut suspect = hidden(&format!("rule{pid}"), *pid, &LOW);
        suspect.bare.user = vec![b'x'; 250];
        suspect
    });
    hits.note(&scan(1, &pids, suspects.collect()));
    assert_eq!(hits.rules.len(), RULES_MAX);
    assert!(hits.sample_bytes <= SAMPLE_BYTES_MAX);
    let bytes: usize = hits.rules.values().map(|count| count.samples.bytes()).sum();
    assert_eq!(hits.sample_bytes, bytes);
    // Thousands of processes of one rule.
    let crowd: Vec<u32> = (1..=u32::try_from(LIVE_MAX).unwrap() + 50).collect();
    let suspects = crowd.iter().map(|pid| hidden("crowd", *pid, &LOW));
    let hits = noted(vec![scan(1, &crowd, suspects.collect())]);
    assert_eq!(hits.live.len(), LIVE_MAX);
    assert_eq!(only(&hits).0, LIVE_MAX as u64);
    let (message, _) = hits.changed_after(0, usize::MAX);
    assert!(prost::Message::encoded_len(&message[0]) < 1_000);
}

#[test]
fn a_full_table_forgets_the_rule_that_hid_nothing_for_longest() {
    let mut hits = Hits::default();
    for n in 0..=u32::try_from(RULES_MAX).unwrap() {
        let at = 1_000 + i64::from(n);
        hits.note(&scan(
            at,
            &[n + 1],
            vec![hidden(&format!("rule{n}"), n + 1, &LOW)],
        ));
    }
    let oldest = hits.rules.values().map(|count| count.first.0).min();
    assert_eq!((hits.rules.len(), oldest), (RULES_MAX, Some(1_001)));
}

#[test]
fn counts_survive_a_restart_and_live_processes_are_not_counted_again() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = || scan(7, &[5], vec![hidden("u", 5, &HIGH)]);
    let (mut file, mut hits, damaged) = HitsFile::load(dir.path()).unwrap();
    assert!(!damaged);
    hits.note(&outcome());
    file.save(&hits).unwrap();
    let (_, mut read, damaged) = HitsFile::load(dir.path()).unwrap();
    assert!(!damaged);
    assert_eq!(read, hits);
    read.note(&outcome());
    assert_eq!(only(&read), (1, 1));
    let (message, _) = read.changed_after(0, usize::MAX);
    let sample = &message[0].samples[0];
    assert_eq!(
        sample.indicators[0].severity,
        i32::from(severity_to_wire(Severity::High))
    );
}

#[test]
fn a_damaged_file_is_told_and_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, mut hits, _) = HitsFile::load(dir.path()).unwrap();
    hits.note(&scan(7, &[5], vec![hidden("u", 5, &HIGH)]));
    file.save(&hits).unwrap();
    let path = dir.path().join("hits");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let (_, read, damaged) = HitsFile::load(dir.path()).unwrap();
        assert!(damaged && read == Hits::default(), "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(HitsFile::load(dir.path()).unwrap().2, "cut at {at}");
    }
    let (mut file, read, _) = HitsFile::load(dir.path()).unwrap();
    file.save(&read).unwrap();
    assert!(!HitsFile::load(dir.path()).unwrap().2);
}

#[test]
fn a_flood_of_changes_is_written_once_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, mut hits, _) = HitsFile::load(dir.path()).unwrap();
    let began = Instant::now();
    let written = |file: &mut HitsFile, hits: &mut Hits, pid: u32, secs: u64| {
        hits.note(&scan(1, &[pid], vec![hidden("u", pid, &LOW)]));
        let now = began + Duration::from_secs(secs);
        file.save_when_due(hits, now).unwrap();
        only(&HitsFile::load(dir.path()).unwrap().1).0
    };
    assert_eq!(written(&mut file, &mut hits, 1, 0), 1);
    assert_eq!(written(&mut file, &mut hits, 2, 59), 1);
    assert_eq!(written(&mut file, &mut hits, 3, 60), 3);
}

#[test]
fn a_stream_says_everything_once_and_a_new_one_says_it_again() {
    let shared = SharedHits::default();
    shared
        .lock()
        .note(&scan(1, &[5], vec![hidden("u", 5, &LOW)]));
    let news = shared.news(&Told::default());
    assert_eq!((news.rule_hits.len(), news.anew), (1, true));
    let told = news.sent();
    let news = shared.news(&told);
    assert_eq!((news.rule_hits.len(), news.anew), (0, false));
    assert!(shared.news(&Told::default()).anew);
}
