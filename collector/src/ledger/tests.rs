//! Commits on a real journal in a temporary directory.

use super::*;

fn token(id: &str) -> Entry {
    Entry::TokenCreated(v1::TokenCreated {
        id: id.into(),
        secret_sha256: Bytes::from_static(&[7; 32]),
        groups: vec!["web".into()],
        expires_at_ms: 9_000,
        uses: 1,
    })
}

async fn commit(ledger: &Ledger, entry: Entry) -> Result<(), CommitError<String>> {
    ledger
        .commit(UnixMillis(1_000), "uid:0(root)", |_| Ok(entry))
        .await
}

#[tokio::test]
async fn what_was_committed_is_there_after_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    commit(&ledger, token("t1")).await.unwrap();
    commit(
        &ledger,
        Entry::TokenRevoked(v1::TokenRevoked { id: "t1".into() }),
    )
    .await
    .unwrap();
    drop(ledger);

    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.read(|state| {
        assert!(state.tokens["t1"].revoked);
        assert_eq!(state.tokens["t1"].created_at, UnixMillis(1_000));
    });
}

#[tokio::test]
async fn a_refused_decision_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let refused = ledger
        .commit(UnixMillis(1), "collector", |_| Err("no".to_owned()))
        .await;
    assert!(matches!(refused, Err(CommitError::Refused(why)) if why == "no"));
    assert_eq!(*ledger.changes().borrow(), 0);
}

#[tokio::test]
async fn a_record_that_makes_no_sense_is_not_written_and_poisons_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let bad = Entry::TokenRevoked(v1::TokenRevoked {
        id: "unknown".into(),
    });
    assert!(matches!(
        commit(&ledger, bad).await,
        Err(CommitError::Stopped(_))
    ));
    commit(&ledger, token("t1")).await.unwrap();
    assert_eq!(*ledger.changes().borrow(), 1);
}

#[tokio::test]
async fn concurrent_decisions_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            ledger
                .commit(UnixMillis(1), "collector", |state| {
                    if state.tokens.contains_key("only") {
                        Err(())
                    } else {
                        Ok(token("only"))
                    }
                })
                .await
                .is_ok()
        });
    }
    let won = tasks
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn every_commit_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut changes = ledger.changes();
    commit(&ledger, token("t1")).await.unwrap();
    changes.changed().await.unwrap();
    assert_eq!(*changes.borrow(), 1);
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_committed_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.writer.lock().await.journal.fail_writes();
    for id in ["t1", "t2"] {
        let failed = commit(&ledger, token(id)).await;
        assert!(matches!(failed, Err(CommitError::Stopped(why)) if why.contains("cannot write")));
    }
    assert!(ledger.read(|state| state.tokens.is_empty()));
    assert!(ledger.failed().await.contains("cannot write the ledger"));
}

#[tokio::test]
async fn the_audit_trail_comes_newest_first_in_pages_that_leave_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for number in 0..7 {
        let entry = token(&format!("t{number}"));
        let at = UnixMillis(100 * number);
        ledger.commit::<()>(at, "me", |_| Ok(entry)).await.unwrap();
    }
    let times = |since, before, limit| {
        let page = ledger.audit(UnixMillis(since), before, limit, |record| record.at_ms);
        let page = page.unwrap();
        (page.entries, page.more_before)
    };
    let (first, more) = times(0, None, 3);
    assert_eq!(first, [600, 500, 400]);
    let (second, more) = times(0, more, 3);
    assert_eq!(second, [300, 200, 100]);
    assert_eq!(times(0, more, 3), (vec![0], None));
    assert_eq!(times(500, None, 3), (vec![600, 500], None));
    assert_eq!(times(0, None, 7).1, None, "the last page has no more");
    assert_eq!(times(9_000, None, 3), (vec![], None));
}
