//! The proposed file: rules with their counts, then what has none and why.
//!
//! Promises: the text is bounded and fits one message; every text of a process
//! in it is in printable form; what it has no room for is counted in it.

use procwarden_common::clock::UnixMillis;

use super::programs::TurnedAway;
use super::{ACCOUNT, HOST, Learning, NAMED_MAX, Program, Proposed};

/// Bytes of the whole text, half of them for rules.
const BYTES_MAX: usize = 2 * 1024 * 1024;

/// The file while it is written, rules first.
pub(super) struct Text {
    text: String,
    rules: u64,
    left_out: u64,
    /// Left out, and not named either.
    not_named: u64,
    names_any: bool,
}

impl Text {
    pub(super) fn new(head: String) -> Self {
        Self {
            text: head,
            rules: 0,
            left_out: 0,
            not_named: 0,
            names_any: false,
        }
    }

    /// Adds the rule of a program; `preset` has one that covers it.
    pub(super) fn propose(&mut self, program: &Program, preset: Option<&str>) {
        let Ok(rule) = &program.rule else { return };
        let preset = preset.map_or_else(String::new, |preset| {
            format!("# preset {preset} has a rule for it\n")
        });
        let block = format!("\n{preset}{}{rule}\n", counts(program, "process(es)"));
        if self.text.len() + block.len() > BYTES_MAX / 2 {
            self.left_out += 1;
            self.not_named += 1;
            return;
        }
        self.text.push_str(&block);
        self.rules += 1;
    }

    /// Names a program that has no rule.
    pub(super) fn leave_out(&mut self, name: &str, program: &Program) {
        let Err(why) = &program.rule else { return };
        self.left_out += 1;
        let noun = match name {
            ACCOUNT | HOST => "time(s)",
            _ => "process(es)",
        };
        let block = format!("#\n# {name}: {why}\n{}", counts(program, noun));
        if self.text.len() + block.len() > BYTES_MAX {
            self.not_named += 1;
            return;
        }
        if !self.names_any {
            self.text
                .push_str("\n# Not proposed: look at these yourself.\n");
            self.names_any = true;
        }
        self.text.push_str(&block);
    }

    /// Says what is missing.
    pub(super) fn finish(mut self, turned_away: TurnedAway) -> Proposed {
        if self.not_named > 0 {
            let more = self.not_named;
            self.text.push_str(&format!(
                "#\n# {more} more program(s) are not named: the file would be too long.\n"
            ));
        }
        let TurnedAway {
            findings,
            programs,
            too_many,
        } = turned_away;
        if findings > 0 {
            let at_least = if too_many { "at least " } else { "" };
            self.text.push_str(&format!(
                "#\n# {findings} finding(s) of {at_least}{programs} more program(s) are not counted: \
                 there are too many to tell apart.\n"
            ));
        }
        Proposed {
            text: self.text,
            rules: self.rules,
            left_out: self.left_out + programs,
        }
    }
}

/// What stands above everything.
pub(super) fn head(group: &str, learning: &Learning, now: UnixMillis) -> String {
    let until = learning.until.min(now);
    format!(
        "# What was found on the hosts of group {group} from {} to {until}.\n\
         # A proposal to edit: take out what does not belong there, give every rule\n\
         # a reason, then look at it with `procwarden policy preview` and publish it.\n",
        learning.since
    )
}

/// A comment line.
fn counts(program: &Program, noun: &str) -> String {
    let more = |all: usize| if all > NAMED_MAX { " ..." } else { "" };
    let indicators = program.indicators.iter().take(NAMED_MAX);
    let indicators: Vec<String> = indicators.map(|(id, n)| format!("{id} x{n}")).collect();
    let accounts = program.accounts.iter().take(NAMED_MAX);
    let accounts: Vec<&str> = accounts.map(String::as_str).collect();
    let accounts = match accounts.as_slice() {
        [] => String::new(),
        some => format!("; as {}{}", some.join(" "), more(program.accounts.len())),
    };
    format!(
        "# {} {noun} on {} host(s), last {}, up to {}: {}{}{accounts}\n",
        program.findings,
        program.hosts.len(),
        program.last_seen,
        program.severity,
        indicators.join(", "),
        more(program.indicators.len()),
    )
}
