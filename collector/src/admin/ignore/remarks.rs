//! What the check says of a rule that was put at the end of a policy's first
//! file. Pure; checks the whole policy, so it takes as long as publishing.

use procwarden_common::clock::UnixMillis;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::policy::{EffectivePolicy, PolicyDocument, PolicyFile, check, source_lines};

/// The remarks about what `next` has in its first file behind the lines of
/// `before`, and those about other rules that name its last line.
pub(super) fn about_last_rule(
    before: &[PolicyFile],
    next: PolicyDocument,
    now: UnixMillis,
) -> Vec<Diagnostic> {
    let Some(first) = next.files.first() else {
        return Vec::new();
    };
    let path = first.path.clone();
    let lines = |file: &PolicyFile| source_lines(&file.content).len();
    let (old, new) = (before.first().map_or(0, lines), lines(first));
    let place = format!("{path}:{new}");
    let is_about_it = |remark: &Diagnostic| {
        let is_new = usize::try_from(remark.line).is_ok_and(|line| line > old);
        (remark.file == path && is_new) || names(&remark.message, &place)
    };
    let effective = EffectivePolicy {
        documents: vec![next],
    };
    let mut remarks = check(&effective, now).map_or_else(|errors| errors, |(_, found)| found);
    remarks.retain(is_about_it);
    remarks
}

/// Whether a sentence names a place, as a word of its own.
fn names(sentence: &str, place: &str) -> bool {
    sentence.split(' ').any(|word| word == place)
}
