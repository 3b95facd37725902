//! One finding with everything that is known of it.

use std::net::SocketAddr;

use procwarden_common::finding::view::{
    ActionView, EnvironmentView, FindingView, HostView, ProgramView,
};
use procwarden_common::finding::{Finding, ProcessFacts, StoredFinding};
use procwarden_common::printable::{printable, printable_cmdline};

use crate::failure::Failure;
use crate::output::Output;
use crate::table::Table;

pub(super) fn write(stored: &StoredFinding, out: &mut Output) -> Result<(), Failure> {
    out.table(&facts_table(stored))?;
    out.line("")?;
    out.line("why it was reported:")?;
    for indicator in &stored.finding.indicators {
        let words = indicator.id.info().map_or("", |info| info.words);
        out.line(&format!(
            "  {} ({}): {words}",
            indicator.id, indicator.severity
        ))?;
        out.line(&format!("    {}", indicator.evidence))?;
    }
    for (title, lines) in lists(&stored.finding) {
        if lines.is_empty() {
            continue;
        }
        out.line("")?;
        out.line(&format!("{title}:"))?;
        for line in lines {
            out.line(&format!("  {line}"))?;
        }
    }
    Ok(())
}

fn facts_table(stored: &StoredFinding) -> Table {
    let view = FindingView::of_stored(stored);
    let mut table = Table::list();
    table.fact("finding", &view.id);
    table.fact("host", format!("{} ({})", view.host, stored.host_id));
    table.fact("severity", view.severity);
    table.fact("state", state_words(stored));
    if let Some(account) = &view.account {
        table.fact("account", format!("{} (uid {})", account.user, account.uid));
    }
    if let Some(load) = &view.load {
        table.fact("load averages", load.averages.join(" "));
        table.fact("processors", load.processors.to_string());
        table.fact("processes", load.processes.to_string());
    }
    if let Some(process) = &view.process {
        table.fact(
            "process",
            format!("{} (parent {})", process.pid, process.ppid),
        );
        table.fact(
            "started",
            format!(
                "{} ({} s old when seen)",
                process.started_at, process.age_secs
            ),
        );
    }
    if let Some(program) = &view.program {
        add_program(&mut table, program);
    }
    if let Some(facts) = &stored.finding.process {
        let kibibytes = |bytes: u64| format!("{} KiB", bytes / 1024);
        table.fact(
            "memory",
            format!(
                "{} resident, {} virtual",
                kibibytes(facts.rss_bytes),
                kibibytes(facts.vsz_bytes)
            ),
        );
    }
    table
}

fn add_program(table: &mut Table, program: &ProgramView) {
    table.fact(
        "executable",
        program.exe.as_deref().unwrap_or("(could not be read)"),
    );
    if let Some(sha256) = &program.exe_sha256 {
        table.fact("SHA-256", sha256);
    }
    if let Some(file) = &program.exe_file {
        table.fact("file", file.to_string());
    }
    let cmdline = if program.cmdline.is_empty() {
        "(empty)"
    } else {
        &program.cmdline
    };
    table.fact("command line", cmdline);
    table.fact(
        "",
        "(a process can write any command line and name it likes)",
    );
    table.fact("name", &program.comm);
    let optional = [
        ("directory", program.cwd.clone()),
        ("control group", program.cgroup.clone()),
        (
            "container",
            program.container.as_ref().map(ToString::to_string),
        ),
        (
            "session",
            program.session.map(|session| session.to_string()),
        ),
        ("terminal", program.tty.clone()),
        ("login uid", program.loginuid.map(|uid| uid.to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            table.fact(name, value);
        }
    }
}

fn state_words(stored: &StoredFinding) -> String {
    let seen = format!(
        "first seen {}, last seen {}",
        stored.first_seen, stored.last_seen
    );
    match stored.ended_at {
        Some(at) => format!("{}, {seen}, ended {at}", stored.state),
        None => format!("{}, {seen}", stored.state),
    }
}

/// Everything that is a list, with its heading.
fn lists(finding: &Finding) -> Vec<(&'static str, Vec<String>)> {
    let done = finding.actions.iter().map(ActionView::new);
    let mut lists = vec![(
        "what the host did about it",
        done.map(|action| action.to_string()).collect(),
    )];
    lists.extend(finding.process.iter().flat_map(sections));
    let host = finding.host.as_ref().map(HostView::new);
    lists.extend(host.iter().flat_map(HostView::sections));
    lists
}

fn sections(facts: &ProcessFacts) -> [(&'static str, Vec<String>); 5] {
    let address =
        |address: Option<SocketAddr>| address.map_or_else(|| "-".into(), |a| a.to_string());
    let sockets = facts.sockets.iter().map(|socket| {
        let filter = socket
            .filter_len
            .map(|n| format!(" filter of {n} instructions"));
        format!(
            "{} {} {} -> {}{}",
            socket.protocol.as_str(),
            socket.state.as_str(),
            address(socket.local),
            address(socket.remote),
            filter.unwrap_or_default()
        )
    });
    let ancestry = facts.ancestry.iter().map(|parent| {
        let exe = if parent.exe.is_empty() {
            "?".into()
        } else {
            printable(&parent.exe)
        };
        format!(
            "{} {exe}: {}",
            parent.pid,
            printable_cmdline(&parent.cmdline)
        )
    });
    let environment = facts.environment.iter().map(EnvironmentView::new);
    let raw = |lines: &[Vec<u8>]| lines.iter().map(|line| printable(line)).collect();
    [
        ("network", sockets.collect()),
        ("parents, nearest first", ancestry.collect()),
        ("open files", raw(&facts.files)),
        (
            "environment, as far as it tells something",
            environment.map(|entry| entry.to_string()).collect(),
        ),
        ("memory maps", raw(&facts.maps)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::rows::tests::hostile;

    #[test]
    fn everything_that_is_shown_is_printable() {
        let stored = hostile();
        let mut text = facts_table(&stored).render().replace('\n', "");
        for (_, lines) in lists(&stored.finding) {
            text.extend(lines);
        }
        assert!(
            text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)),
            "{text:?}"
        );
        assert!(text.contains("/tmp/\\1b]0;t\\07"), "{text}");
        assert!(text.contains("HOME=/\\1b[2J [longer]"), "{text}");
    }
}
