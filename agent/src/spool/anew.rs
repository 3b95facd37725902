//! Findings whose report a full spool dropped: whoever reported them does so
//! anew, with the facts of then, once half of the spool is free.
//!
//! The reported set takes such a finding as said, and would never say it again
//! while its process lives. The spool alone knows what was dropped, so it lists
//! it (`owed.rs`), durable before the event is gone. Whoever reported it reads
//! the list, keeps by itself what it has to say anew, and has that struck out
//! when it is kept. A crash in between has it said once more, which the
//! collector recognises.

use std::collections::BTreeSet;

use procwarden_common::finding::Subject;

use super::Spool;
use super::owed::ENTRY_BYTES_MAX;

/// In memory they take about four megabytes, and as much in the file.
const REPORTS_MAX: usize = 64 * 1024;

/// Findings of which a report was dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DroppedReports {
    pub(crate) subjects: BTreeSet<Subject>,
    /// There were more than could be listed: it may be any process or account.
    pub(crate) and_more: bool,
}

impl Spool {
    /// Those that the scanner reported.
    pub(crate) fn dropped_reports(&self) -> DroppedReports {
        let subjects = self.owed.reports.iter();
        let subjects = subjects.filter(|subject| !is_host(subject));
        DroppedReports {
            subjects: subjects.copied().collect(),
            and_more: self.owed.has_unlisted,
        }
    }

    /// Those that the load watch reported.
    pub(crate) fn dropped_host_reports(&self) -> DroppedReports {
        let subjects = self.owed.reports.iter();
        let subjects = subjects.filter(|subject| is_host(subject));
        DroppedReports {
            subjects: subjects.copied().collect(),
            and_more: false,
        }
    }

    /// Somebody else keeps what of these is to be said anew. It is written
    /// down by the next append that has to, and until then a restart says it
    /// again.
    pub(crate) fn strike_out(&mut self, dropped: &DroppedReports) {
        for subject in &dropped.subjects {
            self.owed.remove_report(subject);
        }
        if dropped.and_more {
            self.owed.set_unlisted(false);
        }
    }

    /// Whether findings may be reported anew: half of the spool is free, so
    /// that they are not soon dropped again.
    pub(crate) fn has_room_for_reports(&self) -> bool {
        self.first_waiting().is_none() && self.index_bytes < self.max_bytes / 2
    }

    /// What is listed is no larger than the whole spool.
    pub(super) fn owed_reports_max(&self) -> usize {
        let fit = self.max_bytes / ENTRY_BYTES_MAX;
        usize::try_from(fit).map_or(REPORTS_MAX, |fit| fit.min(REPORTS_MAX))
    }
}

const fn is_host(subject: &Subject) -> bool {
    matches!(subject, Subject::Host { .. })
}
