//! The journal against a model: what was appended and not touched is read
//! back, and nothing else is.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::segment::HEADER_BYTES;
use super::*;

const SMALL: u64 = 200;

fn payload(number: usize, length: usize) -> Bytes {
    let text = format!("record {number} ");
    text.bytes()
        .cycle()
        .take(length.max(1))
        .collect::<Vec<u8>>()
        .into()
}

fn read_all(reader: &JournalReader) -> Vec<(u64, Bytes)> {
    let entry = |e: io::Result<JournalEntry>| e.map(|e| (e.position.0, e.payload)).unwrap();
    reader.read_from(Position(0)).map(entry).collect()
}

fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    files.sort();
    files
}

/// Records with their positions, over several segments and two openings.
fn filled(dir: &Path, lengths: &[usize]) -> Vec<(u64, Bytes)> {
    let mut model = Vec::new();
    for half in lengths.chunks(lengths.len().div_ceil(2).max(1)) {
        let (mut journal, report) = Journal::open_with(dir, SMALL).unwrap();
        assert_eq!(report, OpenReport::default());
        for batch in half.chunks(3) {
            let at = model.len();
            let batch: Vec<Bytes> = batch
                .iter()
                .enumerate()
                .map(|(i, l)| payload(at + i, *l))
                .collect();
            let positions = journal.append_durably(&batch).unwrap();
            model.extend(positions.into_iter().map(|p| p.0).zip(batch));
        }
        assert_eq!(read_all(&journal.reader()), model);
    }
    model
}

#[test]
fn every_position_reads_its_own_record() {
    let dir = tempfile::tempdir().unwrap();
    let lengths = [10, 300, 1, 50, 50, 50, 700, 3].repeat(3);
    let model = filled(dir.path(), &lengths);
    let (journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
    for (position, payload) in &model {
        assert_eq!(
            journal.reader().read_at(Position(*position)).unwrap(),
            payload
        );
    }
    assert!(segment_files(dir.path()).len() > 3, "it rotated");
    let beyond = journal.reader().read_at(journal.end()).unwrap_err();
    assert_eq!(beyond.kind(), io::ErrorKind::NotFound);
    let between = journal.reader().read_at(Position(1)).unwrap_err();
    assert_eq!(between.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let second = Journal::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(
        second.to_string().contains("in use by another collector"),
        "{second}"
    );
    drop(journal);
    assert!(Journal::open(dir.path()).is_ok());
}

#[test]
fn a_failed_write_poisons_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    journal.append_durably(&[payload(0, 20)]).unwrap();
    let end = journal.end();
    journal.fail_writes();
    let full = journal.append_durably(&[payload(1, 20)]).unwrap_err();
    assert!(
        full.to_string().contains("make room on that file system"),
        "{full}"
    );
    let later = journal.append_durably(&[payload(2, 20)]).unwrap_err();
    assert!(later.to_string().contains("failed before"), "{later}");
    assert_eq!(journal.end(), end);
    assert_eq!(read_all(&journal.reader()).len(), 1);
}

#[test]
fn records_that_cannot_be_stored_are_refused_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    for bad in [Bytes::new(), Bytes::from(vec![0; RECORD_BYTES_MAX + 1])] {
        let refused = journal.append_durably(&[payload(0, 5), bad]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    journal.append_durably(&[payload(0, 5)]).unwrap();
    assert_eq!(read_all(&journal.reader()), [(0, payload(0, 5))]);
}

#[test]
fn closed_segments_are_dropped_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path(), &[150; 12]);
    let (mut journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
    let reader = journal.reader();
    let spans = reader.closed_segments();
    let keep_from = spans[2].first;
    assert_eq!(
        journal
            .drop_segments_before(Position(keep_from.0 + 1))
            .unwrap(),
        2
    );
    let kept: Vec<_> = model
        .iter()
        .filter(|(p, _)| *p >= keep_from.0)
        .cloned()
        .collect();
    assert_eq!(read_all(&reader), kept);
    assert_eq!(reader.begin(), keep_from);
    assert_eq!(reader.damaged_records(), 0);
    assert_eq!(
        reader.read_at(Position(0)).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    let active = segment_files(dir.path()).len();
    journal.drop_segments_before(Position(u64::MAX)).unwrap();
    assert_eq!(
        segment_files(dir.path()).len(),
        1,
        "of {active}, the active one stays"
    );
}

#[test]
fn a_reader_that_is_asked_again_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
    let mut entries = journal.reader().read_from(Position(0));
    for number in 0..20 {
        assert!(entries.next().is_none());
        journal.append_durably(&[payload(number, 90)]).unwrap();
        assert_eq!(
            entries.next().unwrap().unwrap().payload,
            payload(number, 90)
        );
    }
}

#[test]
fn a_last_segment_of_garbage_is_kept_aside_and_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path(), &[150; 5]);
    let last = segment_files(dir.path()).pop().unwrap();
    let bytes = std::fs::metadata(&last).unwrap().len();
    std::fs::write(&last, vec![0xa5; usize::try_from(bytes).unwrap()]).unwrap();
    let (mut journal, report) = Journal::open_with(dir.path(), SMALL).unwrap();
    assert_eq!((report.cut_bytes, report.damaged_records), (0, 1));
    assert_eq!(std::fs::metadata(&last).unwrap().len(), bytes);
    journal.append_durably(&[payload(99, 9)]).unwrap();
    let read = read_all(&journal.reader());
    assert_eq!(read.last().unwrap().1, payload(99, 9));
    assert!(read.len() < model.len() + 1);
    assert!(
        read[..read.len() - 1]
            .iter()
            .all(|record| model.contains(record))
    );
}

#[test]
fn a_missing_segment_costs_only_its_own_records() {
    let dir = tempfile::tempdir().unwrap();
    let model = filled(dir.path(), &[150; 9]);
    let files = segment_files(dir.path());
    std::fs::remove_file(&files[1]).unwrap();
    let (journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
    let read = read_all(&journal.reader());
    assert!(read.len() < model.len() && read.len() > 2);
    assert!(read.iter().all(|record| model.contains(record)));
    assert_eq!(journal.reader().damaged_records(), 1);
}

#[test]
fn a_journal_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Journal::open(dir.path()).unwrap());
    let file = segment_files(dir.path()).remove(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]).to_le_bytes();
    bytes[60..64].copy_from_slice(&crc);
    std::fs::write(&file, bytes).unwrap();
    let refused = Journal::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("version 9"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_at_any_byte_costs_what_lay_behind_it(
        lengths in proptest::collection::vec(1usize..120, 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = filled(dir.path(), &lengths);
        let last = segment_files(dir.path()).pop().unwrap();
        let first = model_first(&last);
        let size = std::fs::metadata(&last).unwrap().len();
        let cut = cut.index(usize::try_from(size).unwrap() + 1) as u64;
        File::options().write(true).open(&last).unwrap().set_len(cut).unwrap();
        let end = first + cut.saturating_sub(HEADER_BYTES);
        model.retain(|(position, payload)| position + 16 + payload.len() as u64 <= end);

        let (mut journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
        prop_assert_eq!(&read_all(&journal.reader()), &model);
        let positions = journal.append_durably(&[payload(77, 30), payload(78, 300)]).unwrap();
        model.push((positions[0].0, payload(77, 30)));
        model.push((positions[1].0, payload(78, 300)));
        drop(journal);
        let (journal, report) = Journal::open_with(dir.path(), SMALL).unwrap();
        prop_assert_eq!(report.cut_bytes, 0);
        prop_assert_eq!(&read_all(&journal.reader()), &model);
        prop_assert_eq!(journal.reader().damaged_records(), 0);
    }

    #[test]
    fn a_changed_byte_costs_one_record_at_most(
        lengths in proptest::collection::vec(1usize..120, 1..12),
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        change in 1u8..=255,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = filled(dir.path(), &lengths);
        let files = segment_files(dir.path());
        let path = &files[file.index(files.len())];
        let mut bytes = std::fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let file = File::options().write(true).open(path).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let hit = (model_first(path) + at as u64).checked_sub(HEADER_BYTES);
        if at as u64 >= HEADER_BYTES {
            let hit = hit.unwrap();
            model.retain(|(p, payload)| !(*p..p + 16 + payload.len() as u64).contains(&hit));
        }

        let (mut journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
        prop_assert_eq!(&read_all(&journal.reader()), &model);
        let position = journal.append_durably(&[payload(77, 30)]).unwrap()[0].0;
        prop_assert!(model.iter().all(|(p, _)| *p < position));
        model.push((position, payload(77, 30)));
        drop(journal);
        let (journal, _) = Journal::open_with(dir.path(), SMALL).unwrap();
        prop_assert_eq!(&read_all(&journal.reader()), &model);
    }
}

fn model_first(path: &Path) -> u64 {
    let name = path.file_stem().unwrap().to_str().unwrap();
    u64::from_str_radix(name, 16).unwrap()
}
