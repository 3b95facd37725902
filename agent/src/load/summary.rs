//! What keeps a host busy: a list as of ps(1), sockets by state, memory.
//!
//! Built by the agent itself, no other program is run. Promises: bounded in
//! every list; the share of a processor is measured between two readings a
//! moment apart, not averaged over the life of a process. Texts stay raw.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use procwarden_common::finding::{BusyProcess, HostFacts, MemoryFigure, SocketCount};
use procwarden_common::limits::{
    BUSY_CMDLINE_BYTES_MAX, BUSY_PROCESSES_MAX, COMM_BYTES_MAX, SOCKET_COUNTS_MAX, USER_BYTES_MAX,
};
use procwarden_common::process::{ProcessKey, Protocol, SocketState};

use crate::procfs::{ProcRoot, ProcessDir, What, parse};

/// Time between the two readings.
const SAMPLE: Duration = Duration::from_secs(1);
/// Processes that are measured; of a fork bomb it is enough.
const PROCESSES_MAX: usize = 50_000;
/// Bytes of `/proc/net/tcp` and its kin that are counted.
const TABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Figures of `/proc/meminfo` that tell (proc(5)).
const MEMORY: [&str; 12] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "SwapTotal",
    "SwapFree",
    "Dirty",
    "Writeback",
    "AnonPages",
    "Shmem",
    "Slab",
];

/// The load averages of 1, 5 and 15 minutes, in hundredths.
pub(super) fn load_averages(root: &ProcRoot) -> Option<[u32; 3]> {
    averages(&root.read_file("loadavg", 4096).ok()?)
}

/// How the host stands now; the load averages are left to the caller. Takes
/// as long as the sample.
pub(super) fn take(root: &ProcRoot) -> HostFacts {
    let before = readings(root);
    let began = Instant::now();
    std::thread::sleep(SAMPLE);
    let after = readings(root);
    let millis = u64::try_from(began.elapsed().as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let processes = u32::try_from(after.len()).unwrap_or(u32::MAX);
    let mut loads: Vec<Load> = after
        .into_iter()
        .map(|(key, now)| {
            let used = before.get(&key).map_or(now.cpu_ticks, |then| {
                now.cpu_ticks.saturating_sub(then.cpu_ticks)
            });
            let permille = root.ticks_to_millis(used).saturating_mul(1000) / millis;
            Load {
                pid: key.0,
                start_time: key.1,
                cpu_permille: u32::try_from(permille).unwrap_or(u32::MAX),
                rss_pages: now.rss_pages,
            }
        })
        .collect();
    let busy = busiest(&mut loads);
    HostFacts {
        load_hundredths: [0; 3],
        processors: processors(root),
        processes,
        busy: busy
            .iter()
            .filter_map(|load| described(root, load))
            .collect(),
        sockets: sockets(root),
        memory: memory(&root.read_file("meminfo", 64 * 1024).unwrap_or_default()),
    }
}

/// Time on processors and resident memory of one process.
#[derive(Debug, Clone, Copy)]
struct Used {
    cpu_ticks: u64,
    rss_pages: u64,
}

/// How busy one process was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    pid: u32,
    start_time: u64,
    cpu_permille: u32,
    rss_pages: u64,
}

fn readings(root: &ProcRoot) -> HashMap<(u32, u64), Used> {
    let (mut pids, mut buffer) = (Vec::new(), Vec::new());
    if root.list(&mut pids).is_err() {
        return HashMap::new();
    }
    pids.into_iter()
        .take(PROCESSES_MAX)
        .filter_map(|pid| {
            let dir = root.process(pid).ok()?;
            dir.read("stat", 4096, &mut buffer).ok()?;
            let (start_time, used) = used(&buffer)?;
            Some(((pid, start_time), used))
        })
        .collect()
}

/// Fields 14, 15, 22 and 24 of proc(5)'s stat.
fn used(stat: &[u8]) -> Option<(u64, Used)> {
    let close = stat.iter().rposition(|&b| b == b')')?;
    // Field 3 has index 0 here.
    let fields: Vec<&[u8]> = parse::words(stat.get(close + 1..)?).take(22).collect();
    let field = |index: usize| parse::number::<u64>(fields.get(index)?);
    Some((
        field(19)?,
        Used {
            cpu_ticks: field(11)?.saturating_add(field(12)?),
            rss_pages: field(21)?,
        },
    ))
}

/// Half of the room for those that used most of the processors, the rest for
/// those with the most memory; the busiest first.
fn busiest(loads: &mut [Load]) -> Vec<Load> {
    let by_cpu = |load: &Load| std::cmp::Reverse((load.cpu_permille, load.rss_pages));
    loads.sort_by_key(by_cpu);
    let mut busy: Vec<Load> = loads.iter().take(BUSY_PROCESSES_MAX / 2).copied().collect();
    loads.sort_by_key(|load| std::cmp::Reverse((load.rss_pages, load.cpu_permille)));
    for load in loads.iter() {
        if busy.len() >= BUSY_PROCESSES_MAX {
            break;
        }
        if !busy.contains(load) {
            busy.push(*load);
        }
    }
    busy.sort_by_key(by_cpu);
    busy
}

fn described(root: &ProcRoot, load: &Load) -> Option<BusyProcess> {
    let dir = root.process(load.pid).ok()?;
    let stat = dir
        .stat()
        .ok()
        .filter(|stat| stat.start_time == load.start_time)?;
    let user = user(&dir);
    let key = ProcessKey {
        boot_id: root.boot_id(),
        pid: load.pid,
        start_time: load.start_time,
    };
    let cmdline = root.ask(key, What::Memory, move || {
        dir.read_whole("cmdline", BUSY_CMDLINE_BYTES_MAX)
    });
    // Unreadable is as good as empty here: its name is shown instead.
    let cmdline = cmdline.and_then(Result::ok).unwrap_or_default();
    let mut comm = stat.comm;
    comm.truncate(COMM_BYTES_MAX);
    Some(BusyProcess {
        pid: load.pid,
        user,
        cpu_permille: load.cpu_permille,
        rss_bytes: load
            .rss_pages
            .saturating_mul(rustix::param::page_size() as u64),
        state: Some(char::from(stat.state)).filter(char::is_ascii_alphabetic)?,
        comm,
        cmdline,
    })
}

/// Its account by number: a busy host must not wait for a name service.
fn user(dir: &ProcessDir) -> Vec<u8> {
    let mut buffer = Vec::new();
    let uid = dir.status(&mut buffer).ok().map(|status| status.uid);
    let mut user = uid.map_or_else(|| b"?".to_vec(), |uid| uid.to_string().into_bytes());
    user.truncate(USER_BYTES_MAX);
    user
}

fn processors(root: &ProcRoot) -> u32 {
    let stat = root.read_file("stat", 1024 * 1024).unwrap_or_default();
    let is_one =
        |line: &&[u8]| line.starts_with(b"cpu") && line.get(3).is_some_and(u8::is_ascii_digit);
    let count = stat.split(|&b| b == b'\n').filter(is_one).count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn averages(text: &[u8]) -> Option<[u32; 3]> {
    let mut words = parse::words(text);
    let mut next = || {
        let word = words.next()?;
        let (whole, rest) = word.split_at_checked(word.iter().position(|&b| b == b'.')?)?;
        let hundredths = rest.get(1..).filter(|digits| digits.len() == 2)?;
        parse::number::<u32>(whole)?
            .checked_mul(100)?
            .checked_add(parse::number(hundredths)?)
    };
    Some([next()?, next()?, next()?])
}

/// Sockets of the agent's own network namespace, which is the host's.
fn sockets(root: &ProcRoot) -> Vec<SocketCount> {
    let tables = [
        ("net/tcp", Protocol::Tcp),
        ("net/tcp6", Protocol::Tcp6),
        ("net/udp", Protocol::Udp),
        ("net/udp6", Protocol::Udp6),
    ];
    let mut counts: BTreeMap<(Protocol, SocketState), u64> = BTreeMap::new();
    for (name, protocol) in tables {
        // What is beyond the limit is not counted: a machine with that many
        // sockets has a telling number of them already.
        let table = root.read_file(name, TABLE_BYTES_MAX).unwrap_or_default();
        for line in table.split(|&b| b == b'\n').skip(1) {
            if let Some(state) = socket_state(line) {
                *counts.entry((protocol, state)).or_default() += 1;
            }
        }
    }
    let count = |((protocol, state), count)| SocketCount {
        protocol,
        state,
        count,
    };
    counts
        .into_iter()
        .map(count)
        .take(SOCKET_COUNTS_MAX)
        .collect()
}

/// The state in a line of a socket table: the fourth word, in hexadecimal. The
/// kernel counts from 1 in the order of the list (tcp_states.h).
fn socket_state(line: &[u8]) -> Option<SocketState> {
    let word = std::str::from_utf8(parse::words(line).nth(3)?).ok()?;
    match usize::from_str_radix(word, 16).ok()? {
        // TCP_NEW_SYN_RECV.
        12 => Some(SocketState::SynRecv),
        number => Some(SocketState::ALL.get(number.checked_sub(1)?)?.0),
    }
}

fn memory(meminfo: &[u8]) -> Vec<MemoryFigure> {
    let figure = |line: &[u8]| {
        let colon = line.iter().position(|&b| b == b':')?;
        let name = MEMORY
            .iter()
            .find(|name| line.get(..colon) == Some(name.as_bytes()))?;
        let kibibytes: u64 = parse::words(line.get(colon + 1..)?)
            .next()
            .and_then(parse::number)?;
        Some(MemoryFigure {
            name: (*name).to_owned(),
            bytes: kibibytes.saturating_mul(1024),
        })
    };
    meminfo
        .split(|&b| b == b'\n')
        .filter_map(figure)
        .take(MEMORY.len())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read() {
        assert_eq!(
            averages(b"0.52 12.58 100.09 3/1024 11206\n"),
            Some([52, 1258, 10_009])
        );
        assert_eq!(averages(b"0.52 x\n"), None);
        let line = b"  1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 0 0 4711";
        assert_eq!(socket_state(line), Some(SocketState::Listen));
        let heading = b"  sl  local_address rem_address   st tx_queue rx_queue";
        assert_eq!(socket_state(heading), None);
        let stat = b"7 (a) R (b) S 1 7 7 0 -1 4194304 1 2 3 4 11 22 0 0 20 0 1 0 777 4096 55 1 2 3";
        let (start_time, of) = used(stat).unwrap();
        assert_eq!((start_time, of.cpu_ticks, of.rss_pages), (777, 33, 55));
        let lines = b"MemTotal:       16000 kB\nHugePages_Total:       0\nMemFree: 5 kB\n";
        let figures: Vec<_> = memory(lines)
            .into_iter()
            .map(|f| (f.name, f.bytes))
            .collect();
        let expected = [
            ("MemTotal".to_owned(), 16_000 * 1024),
            ("MemFree".to_owned(), 5 * 1024),
        ];
        assert_eq!(figures, expected);
    }

    #[test]
    fn those_with_the_most_of_either_are_named_and_no_more() {
        let load = |pid, cpu_permille, rss_pages| Load {
            pid,
            start_time: 1,
            cpu_permille,
            rss_pages,
        };
        let mut loads: Vec<Load> = (0..500).map(|pid| load(pid, 0, 1)).collect();
        loads.push(load(900, 990, 1));
        loads.push(load(901, 0, 1_000_000));
        let busy = busiest(&mut loads);
        assert_eq!(busy.len(), BUSY_PROCESSES_MAX);
        assert_eq!(busy[0].pid, 900);
        assert!(busy.iter().any(|load| load.pid == 901));
    }

    #[test]
    fn this_machine_is_described_within_bounds() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        assert!(load_averages(&root).is_some());
        let facts = take(&root);
        assert!(facts.processors > 0 && facts.processes > 0);
        assert!(!facts.busy.is_empty() && facts.busy.len() <= BUSY_PROCESSES_MAX);
        assert!(facts.memory.iter().any(|figure| figure.name == "MemTotal"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _averages = averages(&text);
            let _used = used(&text);
            let _state = socket_state(&text);
            prop_assert!(memory(&text).len() <= MEMORY.len());
        }
    }
}
