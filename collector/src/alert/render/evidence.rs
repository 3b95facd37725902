//! What a process holds: sockets, files, memory, parents, environment. The first lines of
//! long lists stand in the mail, the whole in an attachment. Pure.

use procwarden_common::finding::view::{EnvironmentView, HostView};
use procwarden_common::finding::{Ancestor, Finding, ProcessFacts, StoredFinding};
use procwarden_common::printable::{printable, printable_cmdline};
use procwarden_common::process::Socket;

use super::text::Text;
use crate::alert::words::clip;

/// Lines of a list in the mail itself; a longer list is attached.
const INLINE_LINES_MAX: usize = 16;

/// Longest line of a list in the mail itself, and in the attachment.
const INLINE_LINE_BYTES_MAX: usize = 400;
const ATTACHED_LINE_BYTES_MAX: usize = 4096;

/// Longest attachment.
const ATTACHMENT_BYTES_MAX: usize = 256 * 1024;

/// A list with its heading.
struct Section {
    heading: &'static str,
    lines: Vec<String>,
    /// Nothing is said when there are no lines.
    if_any: bool,
}

impl Section {
    fn is_long(&self) -> bool {
        self.lines.len() > INLINE_LINES_MAX
            || self
                .lines
                .iter()
                .any(|line| line.len() > INLINE_LINE_BYTES_MAX)
    }
}

fn all(finding: &Finding) -> Vec<Section> {
    let host = finding.host.as_ref().map(HostView::new);
    let of_host = host.iter().flat_map(HostView::sections);
    let of_host = of_host.map(|(heading, lines)| Section {
        heading,
        lines,
        if_any: false,
    });
    let of_process = finding.process.iter().flat_map(of_process);
    of_process.chain(of_host).collect()
}

fn of_process(process: &ProcessFacts) -> [Section; 5] {
    let printed = |texts: &[Vec<u8>]| texts.iter().map(|text| printable(text)).collect();
    [
        Section {
            heading: "Network connections by the process",
            lines: process.sockets.iter().map(socket).collect(),
            if_any: false,
        },
        Section {
            heading: "Files open by the process",
            lines: printed(&process.files),
            if_any: false,
        },
        Section {
            heading: "Parents of the process, nearest first",
            lines: process.ancestry.iter().map(ancestor).collect(),
            if_any: false,
        },
        Section {
            heading: "Telling variables of its environment",
            lines: (process.environment.iter())
                .map(|entry| EnvironmentView::new(entry).to_string())
                .collect(),
            if_any: true,
        },
        Section {
            heading: "Memory maps by the process",
            lines: printed(&process.maps),
            if_any: true,
        },
    ]
}

/// Writes all lists, the long ones with their first lines.
pub(super) fn sections(text: &mut Text, finding: &Finding, attachment: Option<&str>) {
    for section in all(finding) {
        if section.if_any && section.lines.is_empty() {
            continue;
        }
        text.line(&format!("{}:", section.heading));
        if section.lines.is_empty() {
            text.line("  (none seen)");
        }
        for line in section.lines.iter().take(INLINE_LINES_MAX) {
            text.line(&format!(
                "  {}",
                clip(line, INLINE_LINE_BYTES_MAX, " [cut]")
            ));
        }
        if section.is_long() {
            let count = section.lines.len();
            let place = attachment.map_or_else(
                || "not attached, to keep this mail short".to_owned(),
                |name| format!("attached as {name}"),
            );
            text.line(&format!("  [all {count} lines: {place}]"));
        }
        text.blank();
    }
}

/// The long lists in full: file name and text. Nothing when none is long.
pub(super) fn attachment(stored: &StoredFinding) -> Option<(String, String)> {
    let mut text = Text::default();
    for section in all(&stored.finding)
        .iter()
        .filter(|section| section.is_long())
    {
        text.line(&format!("{}:", section.heading));
        for (index, line) in section.lines.iter().enumerate() {
            if text.len() > ATTACHMENT_BYTES_MAX {
                let left_out = section.lines.len() - index;
                text.line(&format!(
                    "  [{left_out} lines left out: this text is long enough]"
                ));
                break;
            }
            text.line(&format!(
                "  {}",
                clip(line, ATTACHED_LINE_BYTES_MAX, " [cut]")
            ));
        }
        text.blank();
    }
    let id: String = stored.id.to_string().chars().take(12).collect();
    (text.len() > 0).then(|| (format!("finding-{id}.txt"), text.into_string()))
}

fn socket(socket: &Socket) -> String {
    let mut words = format!(
        "{:6} {:11}",
        socket.protocol.as_str(),
        socket.state.as_str()
    );
    if let Some(local) = socket.local {
        words.push_str(&format!(" {local}"));
    }
    if let Some(remote) = socket.remote {
        words.push_str(&format!(" -> {remote}"));
    }
    if let Some(instructions) = socket.filter_len {
        words.push_str(&format!(" filter of {instructions} instructions"));
    }
    words
}

fn ancestor(ancestor: &Ancestor) -> String {
    let exe = printable(&ancestor.exe);
    let exe = if exe.is_empty() {
        "(could not be read)"
    } else {
        &exe
    };
    format!(
        "{} {exe}: {}",
        ancestor.pid,
        printable_cmdline(&ancestor.cmdline)
    )
}
