//! `procwarden-collector store check` and `store rebuild`: for a collector that
//! does not run.

use std::path::Path;

use anyhow::Context as _;

use super::entry::FindingEntry;
use super::history::Past;
use super::index::Index;
use crate::journal::{Journal, JournalReader, OpenReport, Position};
use crate::store::Keeper;

/// What a check found.
#[derive(Debug, Clone)]
pub(crate) struct CheckReport {
    pub(crate) journal_bytes: u64,
    /// Records that were read back whole.
    pub(crate) records: u64,
    /// Damaged places in the journal.
    pub(crate) damaged: u64,
    /// Records that are whole and make no sense.
    pub(crate) undecodable: u64,
    /// Bytes of a torn tail that were cut, as at every start.
    pub(crate) cut_bytes: u64,
    pub(crate) journal_end: Position,
    pub(crate) index: IndexReport,
}

/// What a check found of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IndexReport {
    /// It agrees with itself and belongs to the journal.
    Sound {
        position: Position,
        findings: u64,
        findings_open: u64,
    },
    /// It is not there: the next start makes it.
    Missing,
    /// Why the next start makes it again.
    Damaged(String),
}

impl CheckReport {
    /// Whether there is nothing to complain about.
    pub(crate) fn is_good(&self) -> bool {
        let journal_good = self.damaged == 0 && self.undecodable == 0;
        journal_good && !matches!(self.index, IndexReport::Damaged(_))
    }
}

/// Reads journal and index of a data directory as a whole.
///
/// # Errors
/// When there are none, or a collector uses them.
pub(crate) fn check(data_dir: &Path) -> anyhow::Result<CheckReport> {
    let (journal, opened) = open_journal(data_dir)?;
    let reader = journal.reader();
    report(data_dir, &reader, opened)
}

/// Makes the index again from the journal.
///
/// # Errors
/// When there is no journal, a collector uses it, or the disk refuses.
pub(crate) fn rebuild(data_dir: &Path) -> anyhow::Result<CheckReport> {
    let (journal, opened) = open_journal(data_dir)?;
    let reader = journal.reader();
    Keeper::new(data_dir).set_aside("a rebuild was asked for")?;
    let past = load(data_dir, &reader)?;
    let index = Index::new(data_dir, past);
    index.repair().context("cannot rebuild the index")?;
    index.close().context("cannot close the rebuilt index")?;
    report(data_dir, &reader, opened)
}

fn open_journal(data_dir: &Path) -> anyhow::Result<(Journal, OpenReport)> {
    let dir = data_dir.join("findings");
    anyhow::ensure!(
        dir.is_dir(),
        "there is no findings journal in {}: check data_dir",
        data_dir.display(),
    );
    Ok(Journal::open(&dir)?)
}

fn load(data_dir: &Path, journal: &JournalReader) -> anyhow::Result<Past> {
    Past::load(data_dir, journal.clone()).context("cannot read the findings journal")
}

fn report(
    data_dir: &Path,
    journal: &JournalReader,
    opened: OpenReport,
) -> anyhow::Result<CheckReport> {
    let facts = load(data_dir, journal)?.facts;
    let index = match Keeper::new(data_dir).check(journal) {
        Ok(None) => IndexReport::Missing,
        Ok(Some(position)) => IndexReport::Sound {
            position,
            findings: facts.findings(),
            findings_open: facts.open(),
        },
        Err(error) => IndexReport::Damaged(error.to_string()),
    };
    let (mut records, mut undecodable) = (0, 0);
    for record in journal.read_from(Position(0)) {
        let record = record.context("cannot read the findings journal")?;
        records += 1;
        undecodable += u64::from(FindingEntry::decode(record.payload).is_err());
    }
    Ok(CheckReport {
        journal_bytes: journal.bytes(),
        records,
        damaged: journal.damaged_records(),
        undecodable,
        cut_bytes: opened.cut_bytes,
        journal_end: journal.end(),
        index,
    })
}
