//! The table of a one-shot scan.

use comfy_table::{Cell, Color, ContentArrangement, Row, Table, presets};
use procwarden_common::finding::{Finding, Subject};
use procwarden_common::policy::Verdict;
use procwarden_common::printable::{printable, printable_cmdline};
use procwarden_common::severity::Severity;

use crate::scan::Suspect;

/// Characters of a column where no terminal sets a width.
const TEXT_CHARS_MAX: usize = 200;

/// Renders suspects as a table, the worst first, one line each; `all` adds the
/// rules.
pub(super) fn render(suspects: &[Suspect], all: bool) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    let mut heading = vec![
        "PID",
        "USER",
        "AGE",
        "SEVERITY",
        "INDICATORS",
        "EXE",
        "COMMAND",
    ];
    if all {
        heading.push("IGNORED BY");
    }
    table.set_header(heading);
    let mut ordered: Vec<&Suspect> = suspects.iter().collect();
    ordered.sort_by_key(|suspect| std::cmp::Reverse(suspect.bare.severity()));
    for suspect in ordered {
        let mut cells = cells(&suspect.finding());
        if all {
            cells.push(match &suspect.verdict {
                Verdict::Report => Cell::new(""),
                Verdict::Ignored(rule) => Cell::new(format!(
                    "{rule} ({}:{})",
                    rule.origin.file, rule.origin.line
                )),
            });
        }
        let mut row = Row::from(cells);
        // What does not fit into the terminal is cut, not wrapped.
        row.max_height(1);
        table.add_row(row);
    }
    table.trim_fmt()
}

fn cells(finding: &Finding) -> Vec<Cell> {
    let pid = match finding.subject {
        Subject::Process(key) => key.pid.to_string(),
        Subject::Account { .. } | Subject::Host { .. } => "-".to_owned(),
    };
    let facts = finding.process.as_ref();
    let severity = finding.severity();
    let indicators: Vec<&str> = finding
        .indicators
        .iter()
        .map(|indicator| indicator.id.as_str())
        .collect();
    let exe = facts
        .and_then(|facts| facts.exe.as_ref())
        .map_or_else(|| "-".to_owned(), |exe| printable(exe));
    let command = facts.map_or_else(
        || evidence(finding),
        |facts| printable_cmdline(&facts.cmdline.raw),
    );
    vec![
        Cell::new(pid),
        Cell::new(printable(&finding.user)),
        Cell::new(facts.map_or_else(|| "-".to_owned(), |facts| age(facts.age_secs))),
        Cell::new(severity).fg(colour(severity)),
        Cell::new(indicators.join(" ")),
        Cell::new(cut(exe)),
        Cell::new(cut(command)),
    ]
}

/// An account has no command line, but something to say.
fn evidence(finding: &Finding) -> String {
    finding
        .indicators
        .first()
        .map_or_else(String::new, |indicator| indicator.evidence.clone())
}

fn colour(severity: Severity) -> Color {
    match severity {
        Severity::Critical | Severity::High => Color::Red,
        Severity::Medium => Color::Yellow,
        Severity::Low | Severity::Info => Color::Grey,
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Two units at most: `45s`, `12m`, `3h20m`, `5d7h`.
fn age(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m", secs / 60),
        3600..86_400 => format!("{}h{}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d{}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (720, "12m"),
            (12_000, "3h20m"),
            (457_200, "5d7h"),
        ] {
            assert_eq!(age(secs), text);
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("x".repeat(201)).len(), TEXT_CHARS_MAX + 3);
        assert_eq!(cut("x".repeat(200)).len(), TEXT_CHARS_MAX);
    }
}
