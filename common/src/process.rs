//! A process as one scan saw it: the input of detectors and of `judge`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock::UnixMillis;
use crate::id::BootId;

/// What identifies a process for good: a PID alone is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    /// The boot it belongs to.
    pub boot_id: BootId,
    /// Its process id.
    pub pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/PID/stat` (proc(5)).
    pub start_time: u64,
}

/// What came of an attempt to read something. "Could not" is not "is not
/// there": an unreadable fact is itself worth noting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<T> {
    /// It was read.
    Value(T),
    /// It does not exist: a kernel thread has no executable.
    Absent,
    /// It may exist, but reading it was refused.
    Unreadable,
}

impl<T> Reading<T> {
    /// The value, if it was read.
    pub const fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// Whether the file a process runs is still the file its path names.
/// Decided from device and inode, never from the link's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExeState {
    /// The path names the file that runs, whatever the path looks like.
    Live,
    /// The path names nothing any more.
    Deleted,
    /// The path names another file now.
    Replaced,
    /// It never had a path: memfd_create(2).
    Memfd,
    /// The path could not be looked up, or not in a root that counts.
    Unknown,
}

/// The executable of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exe {
    /// Target of `/proc/PID/exe` as the kernel gave it, ` (deleted)` included;
    /// behind [`UNREACHABLE_PREFIX`] where it is only what the process calls it.
    pub link: Vec<u8>,
    /// What became of the file.
    pub state: ExeState,
    /// Device number, 0 when the file could not be looked at.
    pub dev: u64,
    /// Inode number, 0 when the file could not be looked at.
    pub inode: u64,
    /// Owner of the file, when it could be looked at.
    pub owner_uid: Option<u32>,
    /// The path leads nowhere, and the file lies in memory (tmpfs).
    pub in_memory: bool,
}

impl Exe {
    /// The literal path: the link without the kernel's ` (deleted)` where the
    /// kernel, not the file's name, put it there.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self.state {
            ExeState::Deleted | ExeState::Replaced | ExeState::Memfd => {
                self.link.strip_suffix(DELETED_SUFFIX).unwrap_or(&self.link)
            }
            ExeState::Live | ExeState::Unknown => &self.link,
        }
    }

    /// The path as the process sees it, whether it leads anywhere or not.
    #[must_use]
    pub fn claimed_path(&self) -> &[u8] {
        let path = self.path();
        path.strip_prefix(UNREACHABLE_PREFIX).unwrap_or(path)
    }

    /// The last component of the literal path.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        let path = self.path();
        path.rsplit(|&b| b == b'/').next().unwrap_or(path)
    }
}

/// What the kernel appends to the link of an unlinked executable (d_path).
pub const DELETED_SUFFIX: &[u8] = b" (deleted)";

/// What stands before a path that names another file than the one that runs,
/// or nothing, for everybody but the process: the kernel's word in getcwd(2).
/// No rule about a path covers it.
pub const UNREACHABLE_PREFIX: &[u8] = b"(unreachable)";

/// The arguments of a process, which every process can rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cmdline {
    /// Raw `/proc/PID/cmdline`: arguments, each closed by NUL.
    pub raw: Vec<u8>,
    /// There was more than the limit.
    pub truncated: bool,
}

impl Cmdline {
    /// The first argument, up to its NUL.
    #[must_use]
    pub fn argv0(&self) -> &[u8] {
        self.raw.split(|&b| b == 0).next().unwrap_or_default()
    }
}

/// The kind of an inet or packet socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6, v4-mapped addresses included.
    Tcp6,
    /// UDP over IPv4.
    Udp,
    /// UDP over IPv6.
    Udp6,
    /// Raw IPv4.
    Raw,
    /// Raw IPv6.
    Raw6,
    /// AF_PACKET: sees frames before the firewall.
    Packet,
    /// SCTP over IPv4.
    Sctp,
    /// SCTP over IPv6.
    Sctp6,
}

impl Protocol {
    /// Every protocol with its word on the wire and in JSON.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Tcp, "tcp"),
        (Self::Tcp6, "tcp6"),
        (Self::Udp, "udp"),
        (Self::Udp6, "udp6"),
        (Self::Raw, "raw"),
        (Self::Raw6, "raw6"),
        (Self::Packet, "packet"),
        (Self::Sctp, "sctp"),
        (Self::Sctp6, "sctp6"),
    ];

    /// The word on the wire and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(p, _)| *p == self)
            .map_or("", |(_, word)| word)
    }
}

/// State of a socket, in the kernel's names for TCP (include/net/tcp_states.h);
/// a UDP socket is ESTABLISHED once it has a peer, else CLOSE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketState {
    /// Has a peer.
    Established,
    /// Connecting.
    SynSent,
    /// Being connected to.
    SynRecv,
    /// Closed by this side.
    FinWait1,
    /// Closed by this side, acknowledged.
    FinWait2,
    /// Lingering.
    TimeWait,
    /// Unconnected: the normal state of a bound UDP socket.
    Close,
    /// Closed by the peer.
    CloseWait,
    /// Waiting for the last acknowledgement.
    LastAck,
    /// Waits for connections.
    Listen,
    /// Both sides close.
    Closing,
}

impl SocketState {
    /// Every state with its word on the wire and in JSON.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::Established, "ESTABLISHED"),
        (Self::SynSent, "SYN_SENT"),
        (Self::SynRecv, "SYN_RECV"),
        (Self::FinWait1, "FIN_WAIT1"),
        (Self::FinWait2, "FIN_WAIT2"),
        (Self::TimeWait, "TIME_WAIT"),
        (Self::Close, "CLOSE"),
        (Self::CloseWait, "CLOSE_WAIT"),
        (Self::LastAck, "LAST_ACK"),
        (Self::Listen, "LISTEN"),
        (Self::Closing, "CLOSING"),
    ];

    /// The word on the wire and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(s, _)| *s == self)
            .map_or("", |(_, word)| word)
    }
}

/// A socket that a process holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket {
    /// Its kind.
    pub protocol: Protocol,
    /// Its state.
    pub state: SocketState,
    /// Its own address; a packet socket has none.
    pub local: Option<SocketAddr>,
    /// Its peer, if it has one.
    pub remote: Option<SocketAddr>,
    /// Instructions of the classic BPF program by which a packet socket chooses
    /// what it sees; nothing without one, and where the kernel does not tell.
    pub filter_len: Option<u32>,
}

/// Ports on which a web server answers.
const WEB_PORTS: [u16; 2] = [80, 443];

impl Socket {
    /// Whether somebody is at its other end. Raw and packet sockets have an
    /// address there at most.
    #[must_use]
    pub fn has_peer(&self) -> bool {
        let has_none = matches!(
            self.protocol,
            Protocol::Raw | Protocol::Raw6 | Protocol::Packet
        );
        !has_none && self.state != SocketState::Listen && self.remote.is_some()
    }

    /// Whether its own port is one on which a web server answers, which
    /// `skip_http` clears; a client has others on its side.
    #[must_use]
    pub fn is_on_web_port(&self) -> bool {
        self.local
            .is_some_and(|address| WEB_PORTS.contains(&address.port()))
    }
}

/// One process of a snapshot. Text is raw bytes, as hostile as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Who it is.
    pub key: ProcessKey,
    /// Parent's PID.
    pub ppid: u32,
    /// Process group.
    pub pgrp: i32,
    /// Session id.
    pub session: i32,
    /// One letter of stat's state: `R`, `S`, `Z`, ...
    pub state: u8,
    /// PF_KTHREAD is set in stat's flags: the kernel's own word.
    pub kernel_thread: bool,
    /// Effective uid, which decides what the process may do.
    pub uid: u32,
    /// Name of the account, or its number where it has no name.
    pub user: Arc<[u8]>,
    /// `/proc/PID/comm`, without the newline at its end.
    pub comm: Vec<u8>,
    /// When it started.
    pub started_at: UnixMillis,
    /// Seconds since it started.
    pub age_secs: u64,
    /// What it runs.
    pub exe: Reading<Exe>,
    /// What it says its arguments are.
    pub cmdline: Reading<Cmdline>,
    /// Virtual memory.
    pub vsz_bytes: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Number of the controlling terminal, 0 when there is none.
    pub tty_nr: i32,
    /// Sockets of the process, in every network namespace.
    pub sockets: Vec<Socket>,
}
