//! From `record` to `list`, `get` and `follow`.

use std::collections::HashMap;

use super::*;

#[tokio::test]
async fn a_reported_finding_is_listed_and_shown_with_its_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    record(&findings, 1, 100, vec![simple(5)]).await;
    let listed = list_all(&findings, &FindingFilter::default());
    assert_eq!(listed.len(), 1);
    assert_eq!(
        listed[0].finding.process.as_ref().unwrap().maps,
        Vec::<Vec<u8>>::new()
    );
    let shown = findings.get(id(1, 5)).unwrap().unwrap();
    assert_eq!(Change::Reported(Box::new(shown.finding.clone())), simple(5));
    assert_eq!(
        (shown.first_seen, shown.last_seen),
        (UnixMillis(100), UnixMillis(100))
    );
    assert_eq!(
        (shown.state, shown.host_name.as_str()),
        (FindingState::Open, "web1")
    );
    assert_eq!(findings.get(id(1, 6)).unwrap(), None);
    assert_eq!(findings.open_count(host(1)), 1);
    findings.close().await;
    let after = findings
        .record_changes(host(1), "web1", UnixMillis(1), vec![simple(6)])
        .await;
    assert!(matches!(after, Err(FindingsError::Stopped(_))), "{after:?}");
}

#[tokio::test]
async fn a_host_with_too_long_a_name_is_recorded_under_the_beginning_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    let name = "ü".repeat(300);
    findings
        .record_changes(host(1), &name, UnixMillis(1), vec![simple(5)])
        .await
        .unwrap();
    let stored = findings.get(id(1, 5)).unwrap().unwrap();
    assert_eq!(stored.host_name, "ü".repeat(126));
    findings.close().await;
}

#[tokio::test]
async fn growth_and_end_update_the_finding_and_duplicates_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    let a = || report(5, &[("a", Severity::Low)]);
    let b = || report(5, &[("b", Severity::High)]);
    record(&findings, 1, 100, vec![a(), a()]).await;
    record(&findings, 1, 200, vec![b(), a()]).await;
    record(&findings, 1, 300, vec![end(5), end(5), end(6)]).await;
    record(&findings, 1, 400, vec![a(), b(), end(5)]).await;
    let stored = findings.get(id(1, 5)).unwrap().unwrap();
    let ids: Vec<_> = stored
        .finding
        .indicators
        .iter()
        .map(|i| i.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(
        (stored.first_seen, stored.last_seen),
        (UnixMillis(100), UnixMillis(300))
    );
    assert_eq!(
        (stored.state, stored.ended_at),
        (FindingState::Ended, Some(UnixMillis(900)))
    );
    let figures = findings.figures();
    assert_eq!((figures.findings, figures.findings_open), (1, 0));
    assert_eq!((figures.duplicates, figures.unknown_ends), (6, 1));
    assert_eq!(journal_ids(&findings).len(), 3);
    assert_eq!(findings.open_count(host(1)), 0);
    findings.close().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "most of it is a table")]
async fn filters_pages_and_prefixes_name_the_right_findings() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    for pid in 0..40u32 {
        let severity = if pid % 4 == 0 {
            Severity::Critical
        } else {
            Severity::Low
        };
        let indicator = if pid % 2 == 0 {
            "exe-memfd"
        } else {
            "exe-deleted"
        };
        let change = report(pid, &[(indicator, severity)]);
        record(
            &findings,
            u128::from(pid % 5),
            i64::from(pid / 2),
            vec![change],
        )
        .await;
    }
    record(&findings, 0, 99, vec![end(0), end(10)]).await;
    let all = list_all(&findings, &FindingFilter::default());
    assert_eq!(all.len(), 40);
    assert!(all.is_sorted_by(|a, b| a.first_seen >= b.first_seen));
    let none = FindingFilter::default();
    for (filter, expected) in [
        (
            FindingFilter {
                host: Some(host(3)),
                ..none.clone()
            },
            8,
        ),
        (
            FindingFilter {
                host: Some(host(9)),
                ..none.clone()
            },
            0,
        ),
        (
            FindingFilter {
                user: Some(b"user1".to_vec()),
                ..none.clone()
            },
            13,
        ),
        (
            FindingFilter {
                indicator: "exe-memfd".parse().ok(),
                ..none.clone()
            },
            20,
        ),
        (
            FindingFilter {
                min_severity: Some(Severity::Medium),
                ..none.clone()
            },
            10,
        ),
        (
            FindingFilter {
                state: Some(FindingState::Ended),
                ..none.clone()
            },
            2,
        ),
        (
            FindingFilter {
                since: Some(UnixMillis(15)),
                ..none.clone()
            },
            10,
        ),
        (
            FindingFilter {
                since: Some(UnixMillis(5)),
                until: Some(UnixMillis(15)),
                ..none.clone()
            },
            20,
        ),
        (
            FindingFilter {
                exe: Some(ExeFilter::Path(b"/dev/shm/.x7".to_vec())),
                ..none.clone()
            },
            1,
        ),
        (
            FindingFilter {
                exe: Some(ExeFilter::Sha256([8; 32])),
                ..none.clone()
            },
            1,
        ),
        (
            FindingFilter {
                text: Some(b"-c job 1".to_vec()),
                ..none.clone()
            },
            11,
        ),
        (
            FindingFilter {
                text: Some(b"no such".to_vec()),
                ..none.clone()
            },
            0,
        ),
        (
            FindingFilter {
                host: Some(host(0)),
                state: Some(FindingState::Open),
                since: Some(UnixMillis(5)),
                ..none.clone()
            },
            5,
        ),
    ] {
        let found = list_all(&findings, &filter);
        assert!(found.iter().all(|f| filter.matches(f)));
        let in_all: Vec<_> = all.iter().filter(|f| filter.matches(f)).cloned().collect();
        assert_eq!(found, in_all, "{filter:?}");
        assert_eq!(found.len(), expected, "{filter:?}");
    }
    assert_eq!(
        findings.list(&none, Some(b"nonsense"), 5),
        Err(FindingsError::InvalidCursor)
    );
    let hex = id(3, 13).to_string();
    for digits in [6, 7, 12, 32] {
        assert_eq!(findings.find_prefix(&hex[..digits]).unwrap(), [id(3, 13)]);
    }
    assert_eq!(
        findings.find_prefix(&hex[..9].to_uppercase()).unwrap(),
        [id(3, 13)]
    );
    assert_eq!(findings.find_prefix("zz").unwrap(), []);
    assert_eq!(findings.find_prefix("").unwrap().len(), PREFIX_IDS_MAX);
    findings.close().await;
}

#[tokio::test]
async fn concurrent_senders_are_recorded_exactly_once_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let findings = Findings::open(dir.path()).unwrap();
        let send = |task: u32| {
            let findings = findings.clone();
            tokio::spawn(async move {
                for pid in 0..20 {
                    // Every pair of tasks sends the same findings.
                    let host = u128::from(task / 2);
                    record(&findings, host, i64::from(pid), vec![simple(pid)]).await;
                    assert!(findings.get(id(host, pid)).unwrap().is_some());
                }
            })
        };
        for task in (0..64).map(send).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let mut times: HashMap<FindingId, u32> = HashMap::new();
        journal_ids(&findings)
            .into_iter()
            .for_each(|id| *times.entry(id).or_default() += 1);
        assert_eq!(times.len(), 32 * 20);
        assert!(times.values().all(|times| *times == 1));
        assert_eq!(
            list_all(&findings, &FindingFilter::default()).len(),
            32 * 20
        );
        findings.close().await;
    }
}

#[tokio::test]
async fn a_follower_sees_every_record_once_and_without_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    for pid in 0..300 {
        record(&findings, 1, 1, vec![simple(pid)]).await;
    }
    let mut follower = findings.follow(Position(0));
    let writer = findings.clone();
    let writing = tokio::spawn(async move {
        for pid in 300..900 {
            record(&writer, 1, 1, vec![simple(pid), end(pid)]).await;
        }
        writer.close().await;
    });
    let (mut at, mut alertable, mut seen) = (Position(0), 0, 0);
    let mut middle = None;
    while let Some(records) = follower.recv().await {
        for recorded in records {
            assert_eq!(recorded.position, at);
            at = recorded.next;
            alertable += u32::from(recorded.alertable);
            seen += 1;
            if seen == 400 {
                middle = Some(at);
            }
        }
    }
    writing.await.unwrap();
    assert_eq!((seen, alertable, at), (1500, 900, findings.end()));

    let reopened = Findings::open(dir.path());
    drop(findings);
    let findings = reopened.unwrap();
    let mut rest = findings.follow(middle.unwrap());
    assert_eq!(rest.recv().await.unwrap()[0].position, middle.unwrap());
    let mut late = findings.follow(Position(u64::MAX));
    record(&findings, 2, 1, vec![simple(1)]).await;
    assert_eq!(late.recv().await.unwrap()[0].host_id, host(2));
    findings.close().await;
    assert_eq!(late.recv().await, None);
}

#[tokio::test]
async fn a_failed_journal_acks_nothing_more_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(&dir.path().join("findings")).unwrap();
    journal.fail_writes();
    let findings = Findings::start(dir.path(), journal).unwrap();
    let refused = findings
        .record_changes(host(1), "web1", UnixMillis(1), vec![simple(1)])
        .await;
    assert!(
        matches!(refused, Err(FindingsError::Stopped(_))),
        "{refused:?}"
    );
    let reason = findings.failed().await;
    assert!(reason.contains("make room"), "{reason}");
    let later = findings
        .record_changes(host(1), "web1", UnixMillis(1), Vec::new())
        .await;
    assert_eq!(later, Err(FindingsError::Stopped(reason)));
    findings.close().await;
    let findings = Findings::open(dir.path()).unwrap();
    assert_eq!(list_all(&findings, &FindingFilter::default()), []);
    findings.close().await;
}

#[tokio::test]
async fn retention_drops_whole_old_segments_and_their_findings() {
    let dir = tempfile::tempdir().unwrap();
    let findings = open_small(dir.path(), 2000);
    for pid in 0..100u32 {
        record(&findings, 1, i64::from(pid), vec![simple(pid)]).await;
    }
    // Newest report of the first finding: not old any more.
    let grown = report(0, &[("exe-memfd", Severity::High), ("b", Severity::Low)]);
    record(&findings, 1, 101, vec![grown]).await;
    assert_eq!(findings.drop_older_than(UnixMillis(0)).await.unwrap(), 0);
    let dropped = findings.drop_older_than(UnixMillis(50)).await.unwrap();
    assert!((30..50).contains(&dropped), "{dropped}");
    let kept = list_all(&findings, &FindingFilter::default());
    assert_eq!(kept.len() as u64, 100 - dropped);
    assert!(findings.get(id(1, 0)).unwrap().unwrap().first_seen == UnixMillis(0));
    assert!(findings.get(id(1, 1)).unwrap().is_none());
    assert_eq!(findings.figures().findings_open, 100 - dropped);
    findings.close().await;

    let report = rebuild(dir.path()).unwrap();
    assert!(report.is_good(), "{report:?}");
    let findings = open_small(dir.path(), 2000);
    assert_eq!(list_all(&findings, &FindingFilter::default()), kept);
    assert_eq!(findings.figures().journal_damaged, 0);
    findings.close().await;
}

#[tokio::test]
async fn retention_by_size_drops_the_oldest_until_the_rest_fits() {
    let dir = tempfile::tempdir().unwrap();
    let findings = open_small(dir.path(), 2000);
    for pid in 0..100u32 {
        record(&findings, 1, 5, vec![simple(pid)]).await;
    }
    let bytes = findings.figures().journal_bytes;
    assert_eq!(findings.drop_down_to(bytes).await.unwrap(), 0);
    let dropped = findings.drop_down_to(bytes / 2).await.unwrap();
    assert!((40..60).contains(&dropped), "{dropped}");
    let figures = findings.figures();
    assert!(figures.journal_bytes <= bytes / 2);
    assert_eq!(figures.findings, 100 - dropped);
    let kept = list_all(&findings, &FindingFilter::default());
    assert_eq!(kept.len() as u64, 100 - dropped);
    assert_eq!(kept[0].id, id(1, 99), "the newest stay");
    // What is forgotten is new when it is reported again.
    record(&findings, 1, 6, vec![simple(0), simple(99)]).await;
    assert_eq!(findings.figures().findings, 101 - dropped);
    findings.close().await;
}

#[tokio::test]
async fn a_listing_shows_each_finding_once_whatever_grows_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    for pid in 0..200u32 {
        record(&findings, 1, i64::from(pid), vec![simple(pid)]).await;
    }
    let none = FindingFilter::default();
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = findings.list(&none, cursor.as_deref(), 9).unwrap();
        seen.extend(page.findings.iter().map(|f| f.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
        let pid = u32::try_from(seen.len()).unwrap();
        for (indicator, severity) in [("b", Severity::Low), ("b", Severity::High)] {
            let grown = report(pid % 50, &[(indicator, severity)]);
            record(&findings, 1, 500, vec![grown, simple(1000 + pid)]).await;
        }
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!((seen.len(), distinct.len()), (200, 200));
    findings.close().await;
}
