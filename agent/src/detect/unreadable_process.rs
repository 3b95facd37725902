//! Processes that make whoever reads them hang (T1562 is the closest match).
//!
//! A dead NFS or sshfs mount does that to whole services: then it is the
//! executable and its content that do not answer, and that is medium at most.
//! Arguments lie in memory of the process's own, the kernel reads them from no
//! file, and who waits for a page of one locks no memory meanwhile (kernels
//! before 5.1 did): who holds them back does so on purpose, as a rule. In a user
//! namespace of its own every account can mount what that takes (FUSE).
//!
//! One scan suffices: the hang itself has lasted, or came again
//! (procfs/patience/hangs.rs).

use procwarden_common::indicator::IndicatorId;
use procwarden_common::severity::Severity;

use super::Sighting;
use super::scope::Standing;
use crate::procfs::{Hung, Side, What};

pub(super) fn detect(hung: Option<&Hung>, standing: Standing) -> Option<Sighting> {
    let hung = hung.filter(|_| standing != Standing::OutOfScope)?;
    let reads = |what| hung.reads.contains(&what);
    let (file, content) = (reads(What::File), reads(What::Content));
    // Arguments and executable are asked for together first, and the executable
    // alone after that: what hung twice was the executable.
    let arguments = reads(What::Memory) && !file;
    let severity = match hung.side {
        // Root hides nothing that way, and has services on dead mounts.
        Side::Account(0) => Severity::Low,
        Side::Namespaces if arguments => Severity::High,
        Side::Account(_) | Side::Namespaces => Severity::Medium,
    };
    let part = match (file, arguments, content) {
        (true, _, _) => "executable",
        (false, true, false) => "arguments",
        (false, true, true) => "arguments and the content of its executable",
        (false, false, true) => "executable's content",
        (false, false, false) => return None,
    };
    Some(Sighting::new(
        IndicatorId::UNREADABLE_PROCESS,
        severity,
        format!("reading its {part} hangs: a file system does not answer"),
    ))
}

#[cfg(test)]
mod tests {
    use procwarden_common::indicator::Confirmation;

    use super::*;

    fn seen(side: Side, reads: &[What], standing: Standing) -> Option<(Severity, String)> {
        let hung = Hung {
            reads: reads.to_vec(),
            side,
        };
        let sighting = detect(Some(&hung), standing)?;
        assert_eq!(sighting.confirmation, Confirmation::OneScan);
        Some((sighting.indicator.severity, sighting.indicator.evidence))
    }

    #[test]
    fn arguments_that_hang_are_worst_where_everybody_can_mount() {
        use What::{Content, File, Memory};
        let alice = Side::Account(1000);
        let table: [(Side, &[What], Severity, &str); 7] = [
            (alice, &[Memory], Severity::Medium, "its arguments hangs"),
            (
                alice,
                &[Memory, File],
                Severity::Medium,
                "its executable hangs",
            ),
            (alice, &[Content], Severity::Medium, "executable's content"),
            (
                alice,
                &[Content, Memory],
                Severity::Medium,
                "arguments and the content",
            ),
            (Side::Namespaces, &[Memory], Severity::High, "arguments"),
            (
                Side::Namespaces,
                &[Memory, File],
                Severity::Medium,
                "executable",
            ),
            (Side::Account(0), &[Memory], Severity::Low, "arguments"),
        ];
        for (side, reads, severity, words) in table {
            let (seen, evidence) = seen(side, reads, Standing::InScope).unwrap();
            assert_eq!(seen, severity, "{side:?} {reads:?}");
            assert!(evidence.contains(words), "{evidence}");
        }
    }

    #[test]
    fn who_is_out_of_scope_or_did_not_hang_itself_shows_nothing() {
        let alice = Side::Account(1000);
        assert_eq!(seen(alice, &[What::Memory], Standing::OutOfScope), None);
        assert_eq!(detect(None, Standing::InScope), None);
    }
}
