//! What the agent itself uses: its own lines in /proc.

/// Clock ticks per second in /proc/PID/stat. The kernel's interface fixes
/// USER_HZ at 100 on every architecture that servers run on.
const TICKS_PER_SEC: u64 = 100;

/// Memory and CPU time of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) rss_bytes: u64,
    pub(crate) cpu_us: u64,
}

/// Reads it; zeroes where /proc does not say.
pub(crate) fn own_usage() -> Usage {
    let read = |path| std::fs::read(path).unwrap_or_default();
    usage_of(&read("/proc/self/status"), &read("/proc/self/stat"))
}

fn usage_of(status: &[u8], stat: &[u8]) -> Usage {
    Usage {
        rss_bytes: rss_kib(status).unwrap_or(0) * 1024,
        cpu_us: cpu_ticks(stat).unwrap_or(0) * (1_000_000 / TICKS_PER_SEC),
    }
}

fn rss_kib(status: &[u8]) -> Option<u64> {
    let line = status
        .split(|&b| b == b'\n')
        .find_map(|line| line.strip_prefix(b"VmRSS:"))?;
    std::str::from_utf8(line)
        .ok()?
        .trim()
        .strip_suffix(" kB")?
        .trim()
        .parse()
        .ok()
}

/// Fields 14 and 15 of stat; comm, field 2, may hold blanks and brackets.
fn cpu_ticks(stat: &[u8]) -> Option<u64> {
    let comm_end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(comm_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let status = b"Name:\tx\nVmHWM:\t    9999 kB\nVmRSS:\t    6144 kB\nThreads:\t1\n";
        let stat = b"7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 100 200 300\n";
        let usage = Usage {
            rss_bytes: 6144 * 1024,
            cpu_us: 2_000_000,
        };
        assert_eq!(usage_of(status, stat), usage);
        assert_eq!(usage_of(b"", b"7 (x"), Usage::default());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(own_usage().rss_bytes > 0);
    }
}
