//! Programs that call themselves kernel threads.
//!
//! ps shows a process without arguments in brackets, so a bracketed title
//! looks like the kernel's to whoever reads a process list. The kernel's own
//! word, PF_KTHREAD, cannot be faked.

use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::Process;
use procwarden_common::severity::Severity;

use super::Sighting;
use super::evidence_text::quoted;

/// Beginnings that only kernel threads have, brackets or not.
const KERNEL_PREFIXES: &[&[u8]] = &[
    b"kworker/",
    b"ksoftirqd/",
    b"migration/",
    b"watchdog/",
    b"cpuhp/",
    b"idle_inject/",
    b"rcu_sched",
    b"rcu_preempt",
    b"rcu_bh",
    b"rcu_gp",
    b"rcu_par_gp",
    b"rcu_tasks",
    b"rcuop/",
    b"rcuog/",
    b"rcuos/",
    b"rcuob/",
    b"rcub/",
    b"rcuc/",
    b"jbd2/",
    b"xfsaild/",
    b"scsi_eh_",
    b"scsi_tmf_",
    b"card0-crtc",
    b"card1-crtc",
    b"ext4-rsv-conver",
    b"kcompactd",
    b"kthreadd",
    b"kdevtmpfs",
];

/// Whole names that only kernel threads have.
const KERNEL_NAMES: &[&[u8]] = &[
    b"kworker",
    b"ksoftirqd",
    b"kauditd",
    b"khungtaskd",
    b"khugepaged",
    b"ksmd",
    b"kintegrityd",
    b"kblockd",
    b"kstrp",
    b"kthrotld",
    b"kcached",
    b"oom_reaper",
    b"slub_flushwq",
    b"mm_percpu_wq",
    b"raid5wq",
    b"inet_frag_wq",
    b"netns",
    b"writeback",
    b"blkcg_punt_bio",
    b"tpm_dev_wq",
    b"ata_sff",
    b"edac-poller",
    b"devfreq_wq",
    b"ipv6_addrconf",
    b"zswap-shrink",
    b"charger_manager",
    b"acpi_thermal_pm",
    b"bioset",
];

/// What only kernel threads are called when nothing but digits follows.
const NUMBERED: &[u8] = b"kswapd";

pub(super) fn detect(process: &Process) -> Option<Sighting> {
    // A program that is just being started has no memory and no executable
    // yet and still bears the name of the kernel thread that starts it.
    if process.exe.value().is_none() && process.vsz_bytes == 0 {
        return None;
    }
    let argv0 = process
        .cmdline
        .value()
        .map_or(&b""[..], |cmdline| cmdline.argv0());
    let (what, name) = [("its first argument", argv0), ("its name", &process.comm)]
        .into_iter()
        .find(|(_, name)| is_bracketed(name) || is_kernel_name(name))?;
    let exe = process
        .exe
        .value()
        .map_or_else(|| "unreadable".to_owned(), |exe| quoted(&exe.link));
    let evidence = format!(
        "{what} is {}, but it is no kernel thread: its executable is {exe}",
        quoted(name)
    );
    Some(Sighting::new(
        IndicatorId::FAKE_KERNEL_THREAD,
        Severity::Critical,
        evidence,
    ))
}

fn is_bracketed(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    name.len() > 2 && name.starts_with(b"[") && name.ends_with(b"]")
}

/// The bytes that a name of a kernel thread begins with: every process is
/// looked at in every scan, and most are told apart by this.
const FIRST_BYTES: [bool; 256] = first_bytes();

const fn first_bytes() -> [bool; 256] {
    let mut first = [false; 256];
    first[NUMBERED[0] as usize] = true;
    let mut at = 0;
    while at < KERNEL_PREFIXES.len() {
        first[KERNEL_PREFIXES[at][0] as usize] = true;
        at += 1;
    }
    at = 0;
    while at < KERNEL_NAMES.len() {
        first[KERNEL_NAMES[at][0] as usize] = true;
        at += 1;
    }
    first
}

fn is_kernel_name(name: &[u8]) -> bool {
    let name = name.trim_ascii();
    let first = name.first().map(|byte| usize::from(*byte));
    if first.is_none_or(|first| FIRST_BYTES.get(first) != Some(&true)) {
        return false;
    }
    let numbered = name
        .strip_prefix(NUMBERED)
        .is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
    numbered
        || KERNEL_NAMES.contains(&name)
        || KERNEL_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    #[test]
    fn titles_of_kernel_threads_are_seen_and_others_are_not() {
        let table: [(&[u8], &[u8], bool); 15] = [
            (b"[kworker/0:1]\x00600\0", b"sleep", true),
            (b"[slub_flushwq]   \0\0\0", b"perl", true),
            (b"sleep\x00600\0", b"[x]", true),
            (b" [kworker/0:1]\0", b"sleep", true),
            (b"sleep\x00600\0", b"kworker/u8:2", true),
            (b"kswapd0\0", b"kswapd0", true),
            (b"kdevtmpfsi\0", b"kdevtmpfsi", true),
            (b"kthreaddk\0", b"x", true),
            (b"(sd-pam)\0", b"(sd-pam)", false),
            (b"kswapd-tool\0", b"kswapd-tool", false),
            (b"[]\0", b"[", false),
            (b"\0\0", b"", false),
            (b"/usr/bin/[\0-f\0x\0]\0", b"[", false),
            (b"rcu-viewer\0", b"rcu-viewer", false),
            (b"vhost-4711\0", b"iou-wrk-4711", false),
        ];
        for (cmdline, comm, expected) in table {
            let process = sample::with_title(cmdline, comm);
            assert_eq!(detect(&process).is_some(), expected, "{cmdline:?} {comm:?}");
        }
    }

    #[test]
    fn every_name_of_the_lists_is_one() {
        for name in KERNEL_NAMES.iter().chain(KERNEL_PREFIXES) {
            assert!(is_kernel_name(name), "{}", name.escape_ascii());
        }
        assert!(is_kernel_name(b"kswapd"));
    }

    #[test]
    fn a_program_that_is_being_started_is_left_alone() {
        let mut process = sample::with_title(b"", b"kworker/u8:0");
        process.exe = procwarden_common::process::Reading::Absent;
        process.vsz_bytes = 0;
        assert_eq!(detect(&process), None);
    }
}
