//! `#@` lines on their way to the rule below them.
//!
//! Facts that no rule takes are an error: somebody believes that a rule
//! expires, and it does not.

use super::{Line, PolicyFile, Reader, RuleFacts, column};
use crate::policy::facts;

/// Facts that wait for their rule, and the line that began them.
pub(super) struct Pending<'a> {
    pub(super) facts: RuleFacts,
    line: Line<'a>,
}

impl<'a> Reader<'a> {
    /// Several `#@` lines may stand above one rule.
    pub(super) fn facts(
        &mut self,
        file: &'a PolicyFile,
        line: Line<'a>,
        text: &[u8],
        at: usize,
        pending: &mut Option<Pending<'a>>,
    ) {
        let pending = pending.get_or_insert_with(|| Pending {
            facts: RuleFacts::default(),
            line,
        });
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                let place = column(line.bytes, at + error.valid_up_to());
                let message = "this fact is not UTF-8 text".to_owned();
                return self.error(file, line, place, message, "save the file as UTF-8");
            }
        };
        for wrong in facts::read(text, &mut pending.facts) {
            let place = column(line.bytes, at + wrong.offset);
            self.error(file, line, place, wrong.message, &wrong.help);
        }
    }

    /// Facts that no rule follows.
    pub(super) fn refuse_orphans(&mut self, file: &'a PolicyFile, pending: Option<Pending<'a>>) {
        let Some(Pending { line, .. }) = pending else {
            return;
        };
        let start = line.bytes.iter().position(|b| *b == b'#').unwrap_or(0);
        let message = "no rule follows these facts".to_owned();
        let help = "put them directly above the rule that they are about";
        self.error(file, line, column(line.bytes, start), message, help);
    }
}
