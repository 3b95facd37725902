//! Retention: drops what is too old or too much, by whole segments of the
//! journal. Pure but for the reading of a segment's facts.
//!
//! A segment goes when every segment before it went and its newest record is
//! older than the cutoff, or when the journal is larger than it may be. With it
//! go the findings whose newest full report it holds, open ones included: a
//! process that has run for longer than that without anything new to say is
//! reported anew when it has.

use std::io;

use procwarden_common::clock::UnixMillis;

use super::history::Past;
use super::segment_facts::SegmentFacts;
use crate::journal::SegmentSpan;

/// What may stay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    /// Records received then or later.
    Age(UnixMillis),
    /// So many bytes of the journal.
    Bytes(u64),
}

/// The oldest closed segment, if it has to go.
pub(super) fn examine(
    past: &Past,
    bound: Bound,
) -> io::Result<Option<(SegmentSpan, SegmentFacts)>> {
    let Some(span) = past.journal.closed_segments().first().copied() else {
        return Ok(None);
    };
    if let Bound::Bytes(most) = bound
        && past.journal.bytes() <= most
    {
        return Ok(None);
    }
    let facts = past.files.of_closed(span)?;
    let goes = match bound {
        Bound::Age(cutoff) => facts.newest < cutoff,
        Bound::Bytes(_) => true,
    };
    Ok(goes.then_some((span, facts)))
}
