//! How a host stood, and what it did, in the JSON object of a finding.

use std::fmt;

use serde::Serialize;

use crate::finding::{ActionRecord, BusyProcess, HostFacts, MemoryFigure, SocketCount};
use crate::printable::{printable, printable_cmdline, printable_text};

/// How a host stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostView {
    /// Load averages of 1, 5 and 15 minutes, as `/proc/loadavg` writes them.
    pub averages: [String; 3],
    /// Processors that are online.
    pub processors: u32,
    /// Processes there were.
    pub processes: u32,
    /// Those that used most.
    pub busy: Vec<BusyProcessView>,
    /// Sockets by kind and state.
    pub sockets: Vec<SocketCountView>,
    /// Figures of the memory.
    pub memory: Vec<MemoryFigureView>,
}

/// One busy process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BusyProcessView {
    /// Its PID.
    pub pid: u32,
    /// Its account.
    pub user: String,
    /// Thousandths of one processor.
    pub cpu_permille: u32,
    /// Resident memory.
    pub rss_bytes: u64,
    /// The kernel's letter for its state.
    pub state: char,
    /// Its comm.
    pub comm: String,
    /// Beginning of its command line.
    pub cmdline: String,
}

/// How many sockets of one kind and state there were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SocketCountView {
    /// The kind.
    pub proto: &'static str,
    /// The state.
    pub state: &'static str,
    /// How many.
    pub count: u64,
}

/// One figure of the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryFigureView {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionView {
    /// When it was over.
    pub at: String,
    /// The key of agent.toml that asked for it, or `evidence`.
    pub what: String,
    /// What came of it.
    pub result: String,
}

impl HostView {
    /// In printable form.
    #[must_use]
    pub fn new(facts: &HostFacts) -> Self {
        Self {
            averages: facts
                .load_hundredths
                .map(|load| format!("{}.{:02}", load / 100, load % 100)),
            processors: facts.processors,
            processes: facts.processes,
            busy: facts.busy.iter().map(BusyProcessView::new).collect(),
            sockets: facts.sockets.iter().map(SocketCountView::new).collect(),
            memory: facts.memory.iter().map(MemoryFigureView::new).collect(),
        }
    }

    /// The lists as lines with their headings, for tables and mails.
    #[must_use]
    pub fn sections(&self) -> [(&'static str, Vec<String>); 3] {
        let heading = format!(
            "{:>8} {:12} {:>6} {:>10} S COMMAND",
            "PID", "USER", "CPU%", "RSS-KIB"
        );
        let busy = self.busy.iter().map(ToString::to_string);
        let sockets = self.sockets.iter().map(ToString::to_string);
        let memory = self.memory.iter().map(ToString::to_string);
        [
            (
                "Processes that used most",
                std::iter::once(heading).chain(busy).collect(),
            ),
            ("Sockets", sockets.collect()),
            ("Memory", memory.collect()),
        ]
    }
}

impl BusyProcessView {
    fn new(process: &BusyProcess) -> Self {
        Self {
            pid: process.pid,
            user: printable(&process.user),
            cpu_permille: process.cpu_permille,
            rss_bytes: process.rss_bytes,
            state: process.state,
            comm: printable(&process.comm),
            cmdline: printable_cmdline(&process.cmdline),
        }
    }
}

/// A line as ps(1) writes it; without arguments the name in brackets.
impl fmt::Display for BusyProcessView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = format!("{}.{}", self.cpu_permille / 10, self.cpu_permille % 10);
        let (rss_kib, state) = (self.rss_bytes / 1024, self.state);
        write!(
            f,
            "{:>8} {:12} {cpu:>6} {rss_kib:>10} {state} ",
            self.pid, self.user
        )?;
        if self.cmdline.is_empty() {
            write!(f, "[{}]", self.comm)
        } else {
            f.write_str(&self.cmdline)
        }
    }
}

impl SocketCountView {
    fn new(count: &SocketCount) -> Self {
        Self {
            proto: count.protocol.as_str(),
            state: count.state.as_str(),
            count: count.count,
        }
    }
}

impl fmt::Display for SocketCountView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} {} {}", self.count, self.proto, self.state)
    }
}

impl MemoryFigureView {
    fn new(figure: &MemoryFigure) -> Self {
        Self {
            name: printable_text(&figure.name).into_owned(),
            bytes: figure.bytes,
        }
    }
}

impl fmt::Display for MemoryFigureView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:16} {:>12} KiB", self.name, self.bytes / 1024)
    }
}

impl ActionView {
    /// In printable form.
    #[must_use]
    pub fn new(record: &ActionRecord) -> Self {
        Self {
            at: record.at.to_string(),
            what: printable_text(&record.what).into_owned(),
            result: printable_text(&record.result).into_owned(),
        }
    }
}

impl fmt::Display for ActionView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.at, self.what, self.result)
    }
}
