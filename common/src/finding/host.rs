//! How a host stood while its load was high: values, within the bounds of
//! [`crate::limits`].

use crate::process::{Protocol, SocketState};

/// The facts of a finding about a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// Load averages of 1, 5 and 15 minutes, in hundredths (`/proc/loadavg`).
    pub load_hundredths: [u32; 3],
    /// Processors that are online.
    pub processors: u32,
    /// Processes there were.
    pub processes: u32,
    /// Those that used most of the processors or of the memory, the busiest first.
    pub busy: Vec<BusyProcess>,
    /// How many sockets there were of each kind and state.
    pub sockets: Vec<SocketCount>,
    /// Figures of `/proc/meminfo`.
    pub memory: Vec<MemoryFigure>,
}

/// One busy process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusyProcess {
    /// Its PID.
    pub pid: u32,
    /// Its account.
    pub user: Vec<u8>,
    /// Share of one processor during the sample, in thousandths.
    pub cpu_permille: u32,
    /// Resident memory.
    pub rss_bytes: u64,
    /// The kernel's letter for its state.
    pub state: char,
    /// Its comm, raw.
    pub comm: Vec<u8>,
    /// Beginning of its command line, raw.
    pub cmdline: Vec<u8>,
}

/// How many sockets of one kind and state there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketCount {
    /// The kind.
    pub protocol: Protocol,
    /// The state.
    pub state: SocketState,
    /// How many.
    pub count: u64,
}

/// One figure of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryFigure {
    /// Its name in `/proc/meminfo`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
}
