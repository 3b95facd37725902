//! The texts that rules look at, in printable form. Agent and collector make
//! them here, so that both judge the same text.

use crate::finding::Finding;
use crate::printable::{printable, printable_cmdline};
use crate::process::{Cmdline, Process};

/// The texts of a process that rules look at, in printable form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleText {
    /// Account.
    pub user: String,
    /// Link text of the executable, ` (deleted)` included; nothing when it
    /// could not be read: then no `exe:` or `pexe:` rule matches.
    pub exe: Option<String>,
    /// Command line; nothing when it could not be read or was truncated: a
    /// rule must not match the half of a text.
    pub cmd: Option<String>,
}

impl RuleText {
    /// The texts of a process of a snapshot.
    #[must_use]
    pub fn of_process(process: &Process) -> Self {
        Self {
            user: printable(&process.user),
            exe: process.exe.value().map(|exe| printable(&exe.link)),
            cmd: process.cmdline.value().and_then(whole),
        }
    }

    /// The texts of a process in a report; of an account, the account alone.
    #[must_use]
    pub fn of_finding(finding: &Finding) -> Self {
        let process = finding.process.as_ref();
        Self {
            user: printable(&finding.user),
            exe: process
                .and_then(|facts| facts.exe.as_deref())
                .map(printable),
            cmd: process.and_then(|facts| whole(&facts.cmdline)),
        }
    }
}

fn whole(cmdline: &Cmdline) -> Option<String> {
    (!cmdline.truncated).then(|| printable_cmdline(&cmdline.raw))
}
