//! One page of a listing while it is gathered. Pure.
//!
//! Promises: over all pages of a listing every finding is shown once, whatever
//! is recorded meanwhile: a finding is listed at its newest report before the
//! listing began.

use std::ops::ControlFlow;

use procwarden_common::finding::StoredFinding;
use procwarden_common::id::FindingId;
use procwarden_proto::v1;

use super::key::Cursor;
use super::{History, StoreError, block};
use crate::findings::{FindingFilter, FindingPage};
use crate::journal::Position;

/// Gathers the findings of a page.
pub(super) struct Listing<'q> {
    filter: &'q FindingFilter,
    history: &'q dyn History,
    cursor: Cursor,
    limit: usize,
    findings: Vec<StoredFinding>,
    /// Where the page ends, once it does before everything was looked at.
    ends_at: Option<Position>,
    /// The report that was looked at last.
    last: Position,
    is_cut: bool,
}

impl<'q> Listing<'q> {
    pub(super) fn new(
        filter: &'q FindingFilter,
        cursor: Cursor,
        limit: usize,
        history: &'q dyn History,
    ) -> Self {
        Self {
            filter,
            history,
            cursor,
            limit: limit.max(1),
            findings: Vec::new(),
            ends_at: None,
            last: cursor.before,
            is_cut: false,
        }
    }

    /// Looks at the next older report; `new` and `old` are what ended.
    pub(super) fn take(
        &mut self,
        indexed: &v1::IndexedFinding,
        new: &[v1::BlockEnd],
        old: &[v1::BlockEnd],
    ) -> Result<ControlFlow<()>, StoreError> {
        let position = Position(indexed.position);
        if position >= self.cursor.before || !self.may_match(indexed) {
            return Ok(ControlFlow::Continue(()));
        }
        let stored = block::stored(indexed, new.iter().chain(old))?;
        if self.filter.matches(&stored) && self.shows(stored.id, position) {
            if self.findings.len() >= self.limit {
                self.ends_at = Some(self.last);
                return Ok(ControlFlow::Break(()));
            }
            self.findings.push(stored);
            self.last = position;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A look at the bytes, which costs less than decoding them.
    fn may_match(&self, indexed: &v1::IndexedFinding) -> bool {
        let Some(text) = &self.filter.text else {
            return true;
        };
        // Between two arguments there is another byte than in the question.
        let words = text.split(|byte| *byte == b' ');
        let longest = words.max_by_key(|word| word.len()).unwrap_or_default();
        memchr::memmem::find(&indexed.stored, longest).is_some()
    }

    fn shows(&self, id: FindingId, position: Position) -> bool {
        let began_at = self.cursor.began_at;
        match self.history.newest(id) {
            None => false,
            Some(newest) if newest < began_at => newest == position,
            Some(_) => self.history.newest_before(id, began_at) == Some(position),
        }
    }

    /// Ends the page in front of the block that would come next.
    pub(super) fn cut(&mut self, before: Position) {
        self.is_cut = true;
        self.ends_at = Some(before);
    }

    pub(super) fn finish(self) -> FindingPage {
        let began_at = self.cursor.began_at;
        let cursor = |before| Cursor { began_at, before }.encode();
        FindingPage {
            findings: self.findings,
            next_cursor: self.ends_at.map(cursor),
            is_cut: self.is_cut,
        }
    }
}
