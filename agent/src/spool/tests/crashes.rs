//! What each moment of a crash leaves on the disk, made by hand: every byte of
//! an append, and every step between the files that change together.

use super::*;

/// Copies the files of a spool, as a crash at this moment would leave them.
pub(super) fn crashed(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_cut_at_every_byte_keeps_each_whole_record_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), ROOMY);
    let path = newest_file(dir.path());
    let mut ends = Vec::new();
    for pid in 1..=3 {
        spool.append(&[ended(pid)]).unwrap();
        ends.push(fs::metadata(&path).unwrap().len() as usize);
    }
    let bytes = fs::read(&path).unwrap();
    assert_eq!(ends.last(), Some(&bytes.len()));
    for cut in 0..=bytes.len() {
        let copy = tempfile::tempdir().unwrap();
        let name = path.file_name().unwrap();
        fs::write(copy.path().join(name), &bytes[..cut]).unwrap();
        let mut opened = Spool::open(copy.path(), ROOMY, salt).unwrap();
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        let torn = cut - ends[..whole].last().unwrap_or(&0);
        let told = (opened.damaged, opened.torn_bytes);
        assert_eq!(told, (0, torn as u64), "{cut}");
        opened.spool.append(&[ended(99)]).unwrap();
        drop(opened);
        let mut expected: Vec<_> = (1..=whole).map(|n| (n as u64, n as u32)).collect();
        expected.push((whole as u64 + 1, 99));
        assert_eq!(contents(&mut open(copy.path(), ROOMY)), expected, "{cut}");
    }
}

#[test]
fn segments_that_come_back_after_their_ack_are_not_delivered_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 64 * 1024);
    for pid in 1..=40 {
        spool.append(&[reported(pid, Severity::High, 800)]).unwrap();
    }
    let before = crashed(dir.path());
    spool.ack(35).unwrap();
    // The ack reached the disk, the removals did not.
    fs::copy(dir.path().join("state"), before.path().join("state")).unwrap();
    let files = segment::list(before.path()).unwrap().len();
    let mut spool = open(before.path(), 64 * 1024);
    assert_eq!(contents(&mut spool).first(), Some(&(36, 36)));
    assert!(segment::list(before.path()).unwrap().len() < files);
}

#[test]
fn a_crash_between_count_and_rewrite_counts_too_many_never_too_few() {
    const MAX: u64 = 64 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), MAX);
    let low: Vec<_> = (1..=60)
        .map(|pid| reported(pid, Severity::Low, 800))
        .collect();
    spool.append(&low).unwrap();
    let before = crashed(dir.path());
    let high: Vec<_> = (61..=100)
        .map(|pid| reported(pid, Severity::High, 800))
        .collect();
    spool.append(&high).unwrap();
    let dropped = spool.figures().dropped;
    assert!(dropped > 0);
    // Counted, but still there; the new events were never written.
    fs::copy(dir.path().join("state"), before.path().join("state")).unwrap();
    let mut spool = open(before.path(), MAX);
    assert_eq!(spool.figures().dropped, dropped);
    assert_eq!(contents(&mut spool).len(), 60);
}

#[test]
fn a_replacement_that_was_not_finished_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), ROOMY);
    spool.append(&[ended(1), ended(2)]).unwrap();
    spool.ack(1).unwrap();
    drop(spool);
    let segment = newest_file(dir.path()).with_extension("pws1.new");
    fs::write(&segment, "half a segment").unwrap();
    fs::write(dir.path().join("state.new"), "half a state").unwrap();
    let mut opened = Spool::open(dir.path(), ROOMY, salt).unwrap();
    assert!(!segment.exists() && !opened.state_lost);
    assert_eq!(contents(&mut opened.spool), [(2, 2)]);
}
