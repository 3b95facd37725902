//! The reported subjects on disk.
//!
//! `PWREPRT1 | entries | crc: u32 LE`, where an entry is length-delimited
//! protobuf: subject, indicator ids, highest severity, actions taken. Replaced whole, after
//! the events are in the spool: a crash in between repeats events, and the
//! collector recognises those. Promises: a damaged file is told, and costs
//! repeated events, never a missing one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use procwarden_common::finding::{Ended, Subject};
use procwarden_common::severity::Severity;
use procwarden_proto::v1;
use prost::Message;

use super::{Reported, Said};
use crate::files::{self, FileError};

const NAME: &str = "reported";
const MAGIC: &[u8; 8] = b"PWREPRT1";

/// One subject. The end's message is borrowed for its subject part.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(message, optional, tag = "1")]
    subject: Option<v1::FindingEnded>,
    #[prost(string, repeated, tag = "2")]
    indicators: Vec<String>,
    #[prost(string, tag = "3")]
    highest: String,
    #[prost(string, repeated, tag = "4")]
    actions: Vec<String>,
}

/// The file, and what it was last given.
#[derive(Debug)]
pub(crate) struct ReportedFile {
    path: PathBuf,
    written: Option<BTreeMap<Subject, Said>>,
}

impl ReportedFile {
    /// Reads the file; an empty set when there is none, or (second value
    /// true) when it is damaged.
    pub(crate) fn load(state_dir: &Path) -> Result<(Self, Reported, bool), FileError> {
        let path = state_dir.join(NAME);
        let (reported, damaged) = match files::read_if_there(&path)? {
            None => (Reported::default(), false),
            Some(bytes) => decode(&bytes).map_or((Reported::default(), true), |r| (r, false)),
        };
        let written = (!damaged).then(|| reported.subjects.clone());
        Ok((Self { path, written }, reported, damaged))
    }

    /// Writes the set, if it is not what the file holds.
    pub(crate) fn save(&mut self, reported: &Reported) -> Result<(), FileError> {
        if self.written.as_ref() == Some(&reported.subjects) {
            return Ok(());
        }
        files::replace(&self.path, &encode(reported))?;
        self.written = Some(reported.subjects.clone());
        Ok(())
    }
}

fn encode(reported: &Reported) -> Vec<u8> {
    let mut out = Vec::new();
    for (subject, said) in &reported.subjects {
        let ended = Ended {
            subject: *subject,
            ended_at: Default::default(),
        };
        let entry = Entry {
            subject: Some((&ended).into()),
            indicators: said.indicators.iter().map(ToString::to_string).collect(),
            highest: said.highest.map(|s| s.to_string()).unwrap_or_default(),
            actions: said.actions.iter().cloned().collect(),
        };
        out.extend_from_slice(&entry.encode_length_delimited_to_vec());
    }
    files::seal(MAGIC, &out)
}

fn decode(bytes: &[u8]) -> Option<Reported> {
    let mut rest = files::unseal(MAGIC, bytes)?;
    let mut reported = Reported::default();
    while !rest.is_empty() {
        let entry = Entry::decode_length_delimited(&mut rest).ok()?;
        let ended = Ended::try_from(entry.subject?).ok()?;
        let indicators = entry
            .indicators
            .iter()
            .map(|id| id.parse())
            .collect::<Result<_, _>>();
        let highest = match entry.highest.as_str() {
            "" => None,
            word => Some(word.parse::<Severity>().ok()?),
        };
        let said = Said {
            indicators: indicators.ok()?,
            highest,
            actions: entry.actions.into_iter().collect(),
        };
        reported.subjects.insert(ended.subject, said);
    }
    Some(reported)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reported::tests::{account, process, set};

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, empty, damaged) = ReportedFile::load(dir.path()).unwrap();
        assert_eq!((empty, damaged), (Reported::default(), false));
        let reported = set(&[process(1, 5), account(33, 7)]);
        file.save(&reported).unwrap();
        let (_, read, damaged) = ReportedFile::load(dir.path()).unwrap();
        assert_eq!((read, damaged), (reported, false));
    }

    #[test]
    fn damage_at_any_byte_is_noticed() {
        let reported = set(&[process(1, 5), account(33, 7)]);
        let whole = encode(&reported);
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            assert_eq!(decode(&bytes), None, "byte {at}");
            assert_eq!(decode(&whole[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_damaged_file_is_replaced_even_by_an_empty_set() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "x").unwrap();
        let (mut file, reported, damaged) = ReportedFile::load(dir.path()).unwrap();
        assert!(damaged);
        file.save(&reported).unwrap();
        assert!(!ReportedFile::load(dir.path()).unwrap().2);
    }
}
