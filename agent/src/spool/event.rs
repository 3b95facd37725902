//! What is reported, as an event of the spool: severity and message.
//!
//! Promises: no event is longer than asked for; what is cut off first is what
//! a person misses least (the memory map), and never who or why.

use procwarden_common::severity::Severity;
use procwarden_common::wire::Change;
use procwarden_proto::v1;
use prost::Message as _;

/// Longest event: a batch of one stays far below the limit of a message.
pub(crate) const EVENT_BYTES_MAX: usize = 512 * 1024;

/// Room for the sequence number and the frame around a finding.
const FRAME_BYTES: usize = 32;

/// The event of a change, and the severity by which it is kept when the spool
/// is full. An end counts as information.
pub(crate) fn of_change(change: &Change, bytes_max: usize) -> (Severity, v1::event::Event) {
    match change {
        Change::Reported(finding) => {
            let mut message = v1::Finding::from(finding.as_ref());
            shorten(&mut message, bytes_max.saturating_sub(FRAME_BYTES));
            (
                finding.severity(),
                v1::event::Event::Finding(Box::new(message)),
            )
        }
        Change::Ended(ended) => (
            Severity::Info,
            v1::event::Event::Ended(Box::new(ended.into())),
        ),
    }
}

/// The severity of an event that was read back.
pub(crate) fn severity_of(event: &v1::Event) -> Severity {
    let Some(v1::event::Event::Finding(finding)) = &event.event else {
        return Severity::Info;
    };
    finding
        .indicators
        .iter()
        .map(|i| severity(i.severity()))
        .max()
        .unwrap_or(Severity::Info)
}

fn severity(message: v1::Severity) -> Severity {
    match message {
        v1::Severity::Unspecified | v1::Severity::Info => Severity::Info,
        v1::Severity::Low => Severity::Low,
        v1::Severity::Medium => Severity::Medium,
        v1::Severity::High => Severity::High,
        v1::Severity::Critical => Severity::Critical,
    }
}

/// Leaves out bulky evidence until the message fits.
fn shorten(finding: &mut v1::Finding, bytes_max: usize) {
    const STEPS: [fn(&mut v1::ProcessFacts); 5] = [
        |facts| facts.maps.clear(),
        |facts| facts.files.clear(),
        |facts| facts.environment.clear(),
        |facts| facts.ancestry.clear(),
        |facts| {
            facts.cmdline = facts.cmdline.slice(..facts.cmdline.len().min(1024));
            facts.cmdline_truncated = true;
        },
    ];
    for step in STEPS {
        if finding.encoded_len() <= bytes_max {
            return;
        }
        if let Some(facts) = finding.process.as_mut() {
            step(facts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big() -> v1::Finding {
        v1::Finding {
            process: Some(v1::ProcessFacts {
                cmdline: vec![b'a'; 30_000].into(),
                files: vec![vec![b'f'; 4000].into(); 8],
                maps: vec![vec![b'm'; 4000].into(); 100],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_memory_map_goes_first() {
        let mut finding = big();
        shorten(&mut finding, 100_000);
        let facts = finding.process.unwrap();
        assert!(facts.maps.is_empty());
        assert_eq!(facts.files.len(), 8);
        assert_eq!(facts.cmdline.len(), 30_000);
    }

    #[test]
    fn a_command_line_that_is_cut_says_so() {
        let mut finding = big();
        shorten(&mut finding, 8_000);
        assert!(finding.encoded_len() <= 8_000);
        assert!(finding.process.unwrap().cmdline_truncated);
    }
}
