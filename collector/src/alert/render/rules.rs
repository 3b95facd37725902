//! The rule lines that would ignore what a finding is about. Pure.

use procwarden_common::finding::Finding;
use procwarden_common::policy::suggest::suggest;

use super::text::Text;

/// Longest rule line in a mail: it is copied by hand.
const RULE_BYTES_MAX: usize = 2048;

/// Writes the rules, safest first, and how one becomes effective.
pub(super) fn section(text: &mut Text, finding: &Finding) {
    let suggestions = suggest(finding);
    if suggestions.is_empty() {
        return;
    }
    text.line("If this is legitimate, one of these lines in a policy ignores it, safest first:");
    for suggestion in suggestions {
        if suggestion.line.len() > RULE_BYTES_MAX {
            let bytes = suggestion.line.len();
            text.line(&format!(
                "    (a rule of {bytes} bytes: too long for a mail)"
            ));
        } else {
            text.whole_line(&format!("    {}", suggestion.line));
        }
        if !suggestion.note.is_empty() {
            text.line(&format!("        {}", suggestion.note));
        }
    }
    text.blank();
}
