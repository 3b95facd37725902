//! What a mail says about rules that soon end. Pure.

use super::AlertFacts;
use super::text::Text;
use crate::alert::words::clip;
use crate::ledger::state::ExpiringRule;

/// Longest text of a rule in a line.
const RULE_BYTES_MAX: usize = 300;

/// One line per rule; nothing when there is none.
pub(super) fn write(body: &mut Text, facts: &AlertFacts) {
    if facts.expiring.is_empty() {
        return;
    }
    body.line("Rules that end soon; what they ignore is reported from then on:");
    for rule in &facts.expiring {
        body.line(&format!("    {}", line(rule)));
    }
    body.line("A later date keeps a rule: procwarden policy show POLICY prints the text.");
}

/// The subject of a mail that is about nothing else.
pub(super) fn subject(facts: &AlertFacts) -> String {
    match facts.expiring.as_slice() {
        [rule] => format!("a rule of policy {} ends at {}", rule.policy, rule.end),
        rules => format!("{} rules end soon", rules.len()),
    }
}

fn line(rule: &ExpiringRule) -> String {
    let owner = match rule.owner.as_str() {
        "" => String::new(),
        owner => format!(", owner {owner}"),
    };
    format!(
        "{} ends at {} (policy {}, {}:{}{owner})",
        clip(&super::harmless(&rule.rule), RULE_BYTES_MAX, "..."),
        rule.end,
        rule.policy,
        rule.file,
        rule.line
    )
}
