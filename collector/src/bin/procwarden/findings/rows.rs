//! Findings in one line each.

use procwarden_common::finding::{StoredFinding, Subject};
use procwarden_common::printable::{printable, printable_cmdline};

use crate::table::{Table, severity_cell};

/// Digits of an id that a listing shows; `findings show` takes them.
const ID_DIGITS: usize = 12;

/// Rows of one table. A longer listing is written as several, each with its
/// own widths, so that it is never in memory as a whole.
const TABLE_ROWS_MAX: usize = 1_000;

/// A listing of any length, in tables of a bounded one.
#[derive(Default)]
pub(super) struct Listing {
    table: Option<(Table, usize)>,
    /// Something was given out already.
    begun: bool,
}

impl Listing {
    /// Adds a row; gives the table out when it is full.
    pub(super) fn add(&mut self, stored: &StoredFinding) -> Option<Table> {
        let (mut table, rows) = self.table.take().unwrap_or_else(|| (table(), 0));
        add(&mut table, stored);
        if rows + 1 < TABLE_ROWS_MAX {
            self.table = Some((table, rows + 1));
            return None;
        }
        self.begun = true;
        Some(table)
    }

    /// What was not given out yet; the bare header when there was no row.
    pub(super) fn rest(self) -> Option<Table> {
        let rest = self.table.map(|(table, _)| table);
        rest.or_else(|| (!self.begun).then(table))
    }
}

fn table() -> Table {
    Table::new(&[
        "ID",
        "SEVERITY",
        "STATE",
        "HOST",
        "USER",
        "PID",
        "PROGRAM",
        "WHY",
        "FIRST SEEN",
    ])
}

fn add(table: &mut Table, stored: &StoredFinding) {
    table.row([
        short_id(stored).into(),
        severity_cell(stored.finding.severity()),
        stored.state.as_str().into(),
        printable(stored.host_name.as_bytes()).into(),
        printable(&stored.finding.user).into(),
        pid(stored).into(),
        program(stored).into(),
        why(stored).into(),
        stored.first_seen.to_string().into(),
    ]);
}

/// What follows the severity when findings are watched.
pub(super) fn line(stored: &StoredFinding) -> String {
    format!(
        "{} {} {} user {} pid {} {}: {}",
        stored.last_seen,
        short_id(stored),
        printable(stored.host_name.as_bytes()),
        printable(&stored.finding.user),
        pid(stored),
        program(stored),
        why(stored),
    )
}

fn short_id(stored: &StoredFinding) -> String {
    stored.id.to_string().chars().take(ID_DIGITS).collect()
}

fn pid(stored: &StoredFinding) -> String {
    match stored.finding.subject {
        Subject::Process(key) => key.pid.to_string(),
        Subject::Account { .. } | Subject::Host { .. } => "-".into(),
    }
}

/// The executable; where that could not be read, the words a process has for
/// itself, in brackets as ps(1) writes them.
fn program(stored: &StoredFinding) -> String {
    let Some(facts) = &stored.finding.process else {
        return match stored.finding.subject {
            Subject::Host { .. } => "(host)".into(),
            Subject::Account { .. } | Subject::Process(_) => "(account)".into(),
        };
    };
    if let Some(exe) = &facts.exe {
        return printable(exe);
    }
    match printable_cmdline(&facts.cmdline.raw) {
        text if text.is_empty() => format!("[{}]", printable(&facts.comm)),
        text => format!("[{text}]"),
    }
}

fn why(stored: &StoredFinding) -> String {
    let ids = stored
        .finding
        .indicators
        .iter()
        .map(|indicator| indicator.id.as_str());
    ids.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(super) mod tests {
    use procwarden_common::clock::UnixMillis;
    use procwarden_common::finding::{EnvironmentEntry, Finding, FindingState, ProcessFacts};
    use procwarden_common::id::{BootId, HostId};
    use procwarden_common::indicator::{Indicator, IndicatorId};
    use procwarden_common::process::{Cmdline, ProcessKey};
    use procwarden_common::severity::Severity;
    use uuid::Uuid;

    use super::*;

    /// A finding about a process that writes terminal escapes wherever it can.
    pub(in crate::findings) fn hostile() -> StoredFinding {
        let host_id = HostId::from_uuid(Uuid::from_u128(1));
        let boot_id = BootId::from_uuid(Uuid::from_u128(2));
        let subject = Subject::Process(ProcessKey {
            boot_id,
            pid: 42,
            start_time: 7,
        });
        StoredFinding {
            id: subject.finding_id(Some(host_id)),
            host_id,
            host_name: "web\u{1b}[2J".into(),
            finding: Finding {
                subject,
                indicators: vec![Indicator {
                    id: IndicatorId::EXE_DELETED,
                    severity: Severity::High,
                    evidence: "gone".into(),
                }],
                observed_at: UnixMillis(1),
                uid: 1000,
                user: b"bob\x07".to_vec(),
                process: Some(ProcessFacts {
                    comm: b"x\x1b[31m".to_vec(),
                    exe: Some(b"/tmp/\x9b2J (deleted)".to_vec()),
                    cmdline: Cmdline {
                        raw: b"a\0b\nc\0".to_vec(),
                        truncated: false,
                    },
                    cwd: Some(b"/\xe2\x80\xae".to_vec()),
                    files: vec![b"/tmp/\x1b]0;t\x07".to_vec()],
                    maps: vec![b"7f00-7f01 r-xp /tmp/\x1b[2J".to_vec()],
                    environment: vec![EnvironmentEntry {
                        name: "HOME".into(),
                        value: b"/\x1b[2J".to_vec(),
                        value_truncated: true,
                    }],
                    ..ProcessFacts::default()
                }),
                host: None,
                actions: Vec::new(),
                quiet: false,
            },
            state: FindingState::Open,
            first_seen: UnixMillis(1_795_424_400_000),
            last_seen: UnixMillis(1_795_424_400_000),
            ended_at: None,
            evidence_position: 0,
        }
    }

    #[test]
    fn a_row_and_a_line_stay_in_their_line_whatever_the_process_wrote() {
        let stored = hostile();
        let mut table = table();
        add(&mut table, &stored);
        let text = table.render();
        assert_eq!(text.lines().count(), 2, "{text}");
        for text in [text.replace('\n', ""), line(&stored)] {
            assert!(
                text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)),
                "{text:?}"
            );
            assert!(text.contains("/tmp/\\9b2J (deleted)"), "{text}");
        }
    }

    #[test]
    fn a_long_listing_comes_in_tables_of_a_bounded_length() {
        let stored = hostile();
        for (findings, expected) in [(0, vec![0]), (1, vec![1]), (1_000, vec![1_000])] {
            assert_eq!(rows_of_tables(&stored, findings), expected);
        }
        assert_eq!(rows_of_tables(&stored, 2_001), [1_000, 1_000, 1]);
    }

    /// Rows below the header of each table.
    fn rows_of_tables(stored: &StoredFinding, findings: usize) -> Vec<usize> {
        let mut listing = Listing::default();
        let mut tables: Vec<Table> = (0..findings).filter_map(|_| listing.add(stored)).collect();
        tables.extend(listing.rest());
        let rows = |table: &Table| table.render().lines().count() - 1;
        tables.iter().map(rows).collect()
    }

    #[test]
    fn a_process_without_a_readable_executable_shows_its_own_words_in_brackets() {
        let mut stored = hostile();
        let facts = stored.finding.process.as_mut().expect("a process");
        facts.exe = None;
        assert_eq!(program(&stored), "[a b\\nc]");
        let facts = stored.finding.process.as_mut().expect("a process");
        facts.cmdline.raw.clear();
        assert_eq!(program(&stored), "[x\\1b[31m]");
        stored.finding.process = None;
        assert_eq!(program(&stored), "(account)");
    }
}
