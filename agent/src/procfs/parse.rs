//! Parsers for the files of `/proc/PID`: bytes in, values out.
//!
//! Promises: no input panics or loops, whatever a process put into its name
//! or arguments; one strange line never hides the lines around it.
//! Never opens a file and never assumes UTF-8.

/// PF_KTHREAD of include/linux/sched.h: the kernel's own mark of its threads.
const PF_KTHREAD: u64 = 0x0020_0000;
/// PF_EXITING: memory and executable are being given back.
const PF_EXITING: u64 = 0x0000_0004;
/// Loginuid of whatever never logged in through PAM: (uid_t) -1.
const LOGINUID_NONE: u32 = u32::MAX;

/// What is used of `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its PID; of a thread the thread's own number.
    pub(crate) pid: u32,
    /// Name, raw: it may hold `)`, blanks and newlines.
    pub(crate) comm: Vec<u8>,
    /// State letter.
    pub(crate) state: u8,
    /// Parent's PID.
    pub(crate) ppid: u32,
    /// Process group.
    pub(crate) pgrp: i32,
    /// Session.
    pub(crate) session: i32,
    /// Controlling terminal, 0 for none.
    pub(crate) tty_nr: i32,
    /// Threads, the leader included.
    pub(crate) threads: u64,
    /// Clock ticks between boot and its start.
    pub(crate) start_time: u64,
    /// Virtual memory.
    pub(crate) vsz_bytes: u64,
    /// Resident memory.
    pub(crate) rss_pages: u64,
    /// Where its program and its arguments lie in memory.
    pub(crate) layout: Layout,
    flags: u64,
}

/// Where the kernel put code, stack and arguments: another program lies
/// elsewhere. Fields 26, 28, 48, 49, 50 and 51 of proc(5); zeros where the
/// reader may not see them, or where the text ends before them.
pub(crate) type Layout = [u64; 6];

impl Stat {
    /// The kernel says that this is one of its own threads.
    pub(crate) const fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// It has ended, or is about to: there is nothing left to look at.
    pub(crate) const fn is_ending(&self) -> bool {
        self.flags & PF_EXITING != 0 || matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Parses `/proc/PID/stat`. The name ends at the *last* `)`: nothing behind
/// it can hold one.
pub(crate) fn stat(bytes: &[u8]) -> Option<Stat> {
    let open = bytes.iter().position(|&b| b == b'(')?;
    let close = bytes.iter().rposition(|&b| b == b')')?;
    let comm = bytes.get(open + 1..close)?.to_vec();
    // Field 3 of proc(5) comes first here.
    let mut fields = words(bytes.get(close + 1..)?);
    let state = match fields.next()? {
        [letter] => *letter,
        _ => return None,
    };
    Some(Stat {
        pid: number(bytes.get(..open)?.trim_ascii())?,
        comm,
        state,
        ppid: number(fields.next()?)?,
        pgrp: number(fields.next()?)?,
        session: number(fields.next()?)?,
        tty_nr: number(fields.next()?)?,
        // Each nth() passes over the fields that are not used.
        flags: number(fields.nth(1)?)?,
        threads: number(fields.nth(10)?)?,
        start_time: number(fields.nth(1)?)?,
        vsz_bytes: number(fields.next()?)?,
        rss_pages: number(fields.next()?)?,
        layout: layout(&mut fields),
    })
}

fn layout<'a>(fields: &mut impl Iterator<Item = &'a [u8]>) -> Layout {
    // Passed over: the limit of resident memory, the end of the code,
    // signals, processors, delays, times and data.
    [1, 1, 19, 0, 0, 0].map(|skipped| fields.nth(skipped).and_then(number).unwrap_or(0))
}

/// What is used of `/proc/PID/status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    /// Effective uid.
    pub(crate) uid: u32,
    /// Any of its four uids is root's: what is hidden in one, the process can
    /// take back.
    pub(crate) is_root_s: bool,
    /// Virtual memory; 0 when there is none, as for a kernel thread.
    pub(crate) vsz_bytes: u64,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
}

/// Parses `/proc/PID/status`. The kernel escapes newlines in `Name:`, so no
/// process can add a line of its own.
pub(crate) fn status(bytes: &[u8]) -> Option<Status> {
    let mut uids = None;
    let (mut vsz_bytes, mut rss_bytes) = (0, 0);
    for line in bytes.split(|&b| b == b'\n') {
        if let Some(rest) = line.strip_prefix(b"Uid:") {
            uids = uids.or(Some(rest));
        } else if let Some(rest) = line.strip_prefix(b"VmSize:") {
            vsz_bytes = kilobytes(rest);
        } else if let Some(rest) = line.strip_prefix(b"VmRSS:") {
            rss_bytes = kilobytes(rest);
            break;
        }
    }
    // Real, effective, saved, file system.
    let mut uids = words(uids?).map(number::<u32>);
    let (real, uid) = (uids.next()?, uids.next()??);
    Some(Status {
        uid,
        is_root_s: uid == 0 || real == Some(0) || uids.any(|uid| uid == Some(0)),
        vsz_bytes,
        rss_bytes,
    })
}

/// The namespaces that count a process, as far as `/proc/PID/status` shows
/// them: from that of the tree to the innermost. Nothing where it does not.
pub(crate) fn namespaces(status: &[u8]) -> Option<usize> {
    let mut lines = status.split(|&b| b == b'\n');
    let pids = lines.find_map(|line| line.strip_prefix(b"NSpid:"))?;
    Some(words(pids).count())
}

/// The name of a controlling terminal; empty for none.
pub(crate) fn tty_name(tty_nr: i32) -> String {
    if tty_nr == 0 {
        return String::new();
    }
    let nr = u32::from_ne_bytes(tty_nr.to_ne_bytes());
    let (major, minor) = ((nr >> 8) & 0xfff, (nr & 0xff) | ((nr >> 12) & 0xf_ff00));
    match major {
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        5 if minor == 1 => "console".to_owned(),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        _ => format!("{major}:{minor}"),
    }
}

/// The path of `/proc/PID/cgroup`: of the unified hierarchy, else of the first
/// named one that is not the root.
pub(crate) fn cgroup(bytes: &[u8]) -> Vec<u8> {
    let mut first: &[u8] = b"";
    for line in bytes.split(|&b| b == b'\n') {
        let mut parts = line.splitn(3, |&b| b == b':');
        let (Some(id), Some(_), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        // On a hybrid machine the unified path can be an empty "/".
        if id == b"0" && path != b"/" {
            return path.to_vec();
        }
        if first.is_empty() || first == b"/" {
            first = path;
        }
    }
    first.to_vec()
}

/// The login uid of `/proc/PID/loginuid`, if somebody logged in.
pub(crate) fn loginuid(bytes: &[u8]) -> Option<u32> {
    number(bytes.trim_ascii()).filter(|uid| *uid != LOGINUID_NONE)
}

/// The inode in a link such as `net:[4026531840]` or `socket:[4711]`.
pub(crate) fn bracketed_inode(link: &[u8], kind: &[u8]) -> Option<u64> {
    let digits = link
        .strip_prefix(kind)?
        .strip_prefix(b":[")?
        .strip_suffix(b"]")?;
    number(digits)
}

/// Milliseconds since boot, from `/proc/uptime`.
pub(crate) fn uptime_millis(bytes: &[u8]) -> Option<u64> {
    let seconds = words(bytes).next()?;
    let mut parts = seconds.splitn(2, |&b| b == b'.');
    let whole: u64 = number(parts.next()?)?;
    let hundredths: u64 = parts
        .next()
        .map_or(Some(0), |part| number(part.get(..2)?))?;
    whole.checked_mul(1000)?.checked_add(hundredths * 10)
}

/// A number in decimal ASCII digits, a minus sign allowed where the type has
/// one. A scan reads twenty of them per process.
pub(crate) fn number<T: TryFrom<i128>>(word: &[u8]) -> Option<T> {
    let (digits, sign) = match word.strip_prefix(b"-") {
        Some(digits) => (digits, -1),
        None => (word, 1),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    T::try_from(sign * i128::from(value)).ok()
}

/// The words of a line.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let word = rest.get(start..)?;
        let end = word.iter().position(u8::is_ascii_whitespace);
        let (word, behind) = word.split_at_checked(end.unwrap_or(word.len()))?;
        rest = behind;
        Some(word)
    })
}

fn kilobytes(rest: &[u8]) -> u64 {
    words(rest)
        .next()
        .and_then(number::<u64>)
        .unwrap_or(0)
        .saturating_mul(1024)
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
