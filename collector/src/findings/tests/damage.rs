//! What happens to the index between two starts, and while it is used, changes
//! no answer.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::*;

/// A data directory with some history, and everything it answers.
async fn filled(data_dir: &Path) -> Vec<StoredFinding> {
    let findings = Findings::open(data_dir).unwrap();
    for pid in 0..300u32 {
        let at = i64::from(pid);
        record(&findings, u128::from(pid % 7), at, vec![simple(pid)]).await;
        if pid % 3 == 0 {
            record(&findings, u128::from(pid % 7), at + 1, vec![end(pid)]).await;
        }
    }
    let answers = answers(&findings);
    findings.close().await;
    answers
}

fn answers(findings: &Findings) -> Vec<StoredFinding> {
    let listed = list_all(findings, &FindingFilter::default());
    let figures = findings.figures();
    assert_eq!(
        (figures.findings, figures.index_lag_bytes),
        (listed.len() as u64, 0)
    );
    for host_number in 0..7 {
        let open = FindingFilter {
            host: Some(host(host_number)),
            state: Some(FindingState::Open),
            ..FindingFilter::default()
        };
        assert_eq!(
            findings.open_count(host(host_number)),
            list_all(findings, &open).len() as u64
        );
    }
    listed
        .iter()
        .map(|f| findings.get(f.id).unwrap().unwrap())
        .collect()
}

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn damaged_dirs(data_dir: &Path) -> usize {
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    fs::read_dir(data_dir)
        .unwrap()
        .map(name)
        .filter(|n| n.starts_with("index.damaged-"))
        .count()
}

/// sled's file in the index.
fn db_file(index: &Path) -> PathBuf {
    let mut dbs = files(index).into_iter().filter(|file| file.ends_with("db"));
    let db = dbs.next().unwrap();
    assert_eq!(dbs.next(), None, "one index only");
    db
}

/// Findings that are too large for sled's file: it keeps them in files of their
/// own, its blobs. The index is made in one go, as a start without one does.
async fn filled_with_blobs(data_dir: &Path) -> Vec<StoredFinding> {
    let findings = Findings::open(data_dir).unwrap();
    for pid in 0..200 {
        let Change::Reported(mut finding) = simple(pid) else {
            panic!("a report");
        };
        // Nothing that can be packed.
        finding.process.as_mut().unwrap().cmdline.raw = garbage(8000, u64::from(pid));
        record(&findings, 1, 1, vec![Change::Reported(finding)]).await;
    }
    findings.close().await;
    fs::remove_dir_all(data_dir.join("index")).unwrap();
    let findings = Findings::open(data_dir).unwrap();
    let answers = answers(&findings);
    findings.close().await;
    assert!(!blobs(data_dir).is_empty());
    answers
}

fn blobs(data_dir: &Path) -> Vec<PathBuf> {
    let in_blobs = |file: &PathBuf| file.parent().is_some_and(|dir| dir.ends_with("blobs"));
    let mut files = files(&data_dir.join("index"));
    files.retain(in_blobs);
    files
}

fn garbage(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn an_index_that_was_closed_is_opened_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path()).await;
    for _ in 0..2 {
        assert!(dir.path().join("index.clean").is_file());
        let findings = Findings::open(dir.path()).unwrap();
        assert_eq!(answers(&findings), expected);
        assert!(!dir.path().join("index.clean").exists());
        findings.close().await;
    }
    assert_eq!(damaged_dirs(dir.path()), 0);
    let checked = check(dir.path()).unwrap();
    assert!(checked.is_good(), "{checked:?}");
    assert_eq!(
        (checked.records, checked.index),
        (
            400,
            IndexReport::Sound {
                position: checked.journal_end,
                findings: 300,
                findings_open: 200,
            }
        )
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "most of it is a table")]
async fn whatever_is_done_to_the_index_between_two_starts_the_answers_stay() {
    type Harm = fn(&Path, &Path);
    let harms: [(&str, Harm); 9] = [
        ("deleted", |index, _| fs::remove_dir_all(index).unwrap()),
        ("every file is garbage", |index, _| {
            for file in files(index) {
                let length = usize::try_from(fs::metadata(&file).unwrap().len()).unwrap();
                fs::write(file, garbage(length.max(64), 7)).unwrap();
            }
        }),
        ("every file is empty", |index, _| {
            files(index)
                .iter()
                .for_each(|file| fs::write(file, []).unwrap());
        }),
        ("every file is cut in half", |index, _| {
            for file in files(index) {
                let length = fs::metadata(&file).unwrap().len();
                fs::File::options()
                    .write(true)
                    .open(file)
                    .unwrap()
                    .set_len(length / 2)
                    .unwrap();
            }
        }),
        ("garbage over parts of the files", |index, _| {
            for file in files(index) {
                let handle = fs::File::options().write(true).open(&file).unwrap();
                let length = handle.metadata().unwrap().len();
                for part in 0..5 {
                    handle
                        .write_all_at(&garbage(300, part), length * part / 5)
                        .unwrap();
                }
            }
        }),
        ("the database alone is zeros", |index, _| {
            let db = db_file(index);
            let length = usize::try_from(fs::metadata(&db).unwrap().len()).unwrap();
            fs::write(db, vec![0; length]).unwrap();
        }),
        ("a file in place of the directory", |index, _| {
            fs::remove_dir_all(index).unwrap();
            fs::write(index, b"index").unwrap();
        }),
        ("garbage in the notes beside it", |_, data_dir| {
            fs::write(data_dir.join("index.clean"), garbage(100, 3)).unwrap();
            fs::write(data_dir.join("index.opening"), garbage(100, 4)).unwrap();
        }),
        ("a copy of it", |index, data_dir| {
            fs::remove_dir_all(index).unwrap();
            fs::rename(data_dir.join("older"), index).unwrap();
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path()).await;
    let (index, older) = (dir.path().join("index"), dir.path().join("older"));
    for (name, harm) in harms {
        copy_dir(&index, &older);
        harm(&index, dir.path());
        let opened = Findings::open(dir.path()).map_err(|e| format!("{name}: {e:#}"));
        let findings = opened.unwrap();
        assert_eq!(answers(&findings), expected, "{name}");
        let journal = journal_ids(&findings).len();
        record(&findings, 0, 1, vec![simple(0), end(0), simple(7)]).await;
        assert_eq!(
            journal_ids(&findings).len(),
            journal,
            "{name}: known ones stay known"
        );
        findings.close().await;
        if older.exists() {
            fs::remove_dir_all(&older).unwrap();
        }
        assert!(damaged_dirs(dir.path()) <= 1, "{name}");
    }
}

pub(super) fn copy_dir(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        // The index goes on writing, and what it renames meanwhile is missing
        // in the copy: damage that it has to bear anyway.
        match fs::copy(file, target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{copied:?}"),
        }
    }
}

#[tokio::test]
async fn an_overwritten_place_of_the_database_is_never_a_wrong_answer() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled(dir.path()).await;
    for part in 0..16u64 {
        let db = db_file(&dir.path().join("index"));
        let handle = fs::File::options().write(true).open(&db).unwrap();
        let length = handle.metadata().unwrap().len();
        handle
            .write_all_at(&garbage(64, part), length * part / 16 + 40)
            .unwrap();
        let findings = Findings::open(dir.path()).unwrap();
        assert_eq!(answers(&findings), expected, "part {part}");
        findings.close().await;
    }
}

#[tokio::test]
async fn an_index_that_is_behind_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    copy_dir(&dir.path().join("index"), older.path());
    let findings = Findings::open(dir.path()).unwrap();
    for pid in 1000..1050 {
        record(&findings, 3, 5, vec![simple(pid)]).await;
    }
    record(
        &findings,
        1,
        6,
        vec![end(1), report(8, &[("new", Severity::Critical)])],
    )
    .await;
    let expected = answers(&findings);
    findings.close().await;
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy_dir(older.path(), &dir.path().join("index"));
    let findings = Findings::open(dir.path()).unwrap();
    assert_eq!(answers(&findings), expected);
    assert_eq!(damaged_dirs(dir.path()), 0, "it was not rebuilt");
    findings.close().await;
}

#[tokio::test]
async fn what_a_kill_left_of_a_new_index_does_not_stop_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let expected = filled_with_blobs(dir.path()).await;
    for _ in 0..3 {
        fs::write(db_file(&dir.path().join("index")), []).unwrap();
        let findings = Findings::open(dir.path()).unwrap();
        assert_eq!(answers(&findings), expected);
        findings.close().await;
        assert_eq!(damaged_dirs(dir.path()), 0, "nothing was lost");
    }
}

#[tokio::test]
async fn an_index_that_fails_while_it_catches_up_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let older = tempfile::tempdir().unwrap();
    filled_with_blobs(dir.path()).await;
    let index = dir.path().join("index");
    copy_dir(&index, older.path());
    let findings = Findings::open(dir.path()).unwrap();
    for pid in 1000..1300 {
        record(&findings, 3, 5, vec![simple(pid)]).await;
    }
    let expected = answers(&findings);
    findings.close().await;
    let blobs_of_older = |data_dir: &Path| {
        fs::remove_dir_all(&index).unwrap();
        copy_dir(older.path(), &index);
        blobs(data_dir)
    };
    for number in 0..blobs_of_older(dir.path()).len() {
        fs::remove_file(&blobs_of_older(dir.path())[number]).unwrap();
        let findings = Findings::open(dir.path()).unwrap();
        assert_eq!(answers(&findings), expected, "blob {number}");
        findings.close().await;
        assert!(damaged_dirs(dir.path()) <= 1);
    }
}

#[tokio::test]
async fn an_index_of_another_journal_or_ahead_of_it_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    fs::remove_dir_all(dir.path().join("findings")).unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    assert_eq!(answers(&findings), []);
    record(&findings, 1, 1, vec![simple(1), simple(2)]).await;
    let one = journal_ids(&findings)[0];
    findings.close().await;

    let segment = files(&dir.path().join("findings"))
        .into_iter()
        .next()
        .unwrap();
    let length = fs::metadata(&segment).unwrap().len();
    fs::File::options()
        .write(true)
        .open(segment)
        .unwrap()
        .set_len(length - 100)
        .unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    assert_eq!(
        answers(&findings).iter().map(|f| f.id).collect::<Vec<_>>(),
        [one]
    );
    findings.close().await;
}

#[tokio::test]
async fn an_index_that_fails_while_it_is_used_is_made_again_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = filled(dir.path()).await;
    let findings = Findings::open(dir.path()).unwrap();
    findings.damage_index_for_test();
    record(&findings, 0, -5, vec![simple(0), simple(9000)]).await;
    assert_eq!(journal_ids(&findings).len(), 401, "what was known is known");
    let found = findings.get(id(0, 9000)).unwrap().unwrap();
    // The newest by the journal, whatever the clock said.
    expected.insert(0, found);
    assert_eq!(answers(&findings), expected);
    findings.close().await;
}

#[tokio::test]
async fn evidence_lost_to_damage_costs_the_evidence_only() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let findings = Findings::open(dir.path()).unwrap();
    let stored = findings.get(id(0, 14)).unwrap().unwrap();
    let segment = files(&dir.path().join("findings"))
        .into_iter()
        .next()
        .unwrap();
    let handle = fs::File::options().write(true).open(segment).unwrap();
    handle
        .write_all_at(b"\xff", 128 + stored.evidence_position + 40)
        .unwrap();
    let shown = findings.get(id(0, 14)).unwrap().unwrap();
    assert_eq!(shown.finding.indicators, stored.finding.indicators);
    assert_ne!(shown.finding, stored.finding);
    assert_eq!(findings.figures().journal_damaged, 1);
    findings.close().await;
    let checked = check(dir.path()).unwrap();
    assert_eq!(
        (checked.records, checked.damaged, checked.is_good()),
        (399, 1, false)
    );
}

#[tokio::test]
async fn a_copy_taken_in_the_middle_of_ingest_holds_everything_acked_once() {
    let dir = tempfile::tempdir().unwrap();
    let findings = Findings::open(dir.path()).unwrap();
    let send = |task: u32| {
        let findings = findings.clone();
        tokio::spawn(async move {
            for pid in 0..40 {
                record(&findings, u128::from(task), 1, vec![simple(pid)]).await;
            }
        })
    };
    let senders: Vec<_> = (0..8).map(send).collect();
    for round in 0..5 {
        record(&findings, 99, 1, vec![simple(round)]).await;
        let acked = findings.end();
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), copy.path());
        let copied = Findings::open(copy.path()).unwrap();
        assert!(copied.end() >= acked);
        let ids = journal_ids(&copied);
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!((0..=round).all(|pid| distinct.contains(&id(99, pid))));
        assert_eq!(answers(&copied).len(), ids.len());
        copied.close().await;
    }
    for sender in senders {
        sender.await.unwrap();
    }
    findings.close().await;
}

#[test]
fn a_directory_without_a_journal_cannot_be_checked() {
    let dir = tempfile::tempdir().unwrap();
    let refused = check(dir.path()).unwrap_err();
    assert!(refused.to_string().contains("check data_dir"), "{refused}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}
