//! Logins that hang in sshd before anybody authenticated (PT_SSHDHUNG).
//!
//! Looked for only where the host's own configuration kills them: elsewhere
//! nobody wants to hear of each. sshd names such a process `sshd: unknown
//! [net]` and its privileged half `sshd: unknown [priv]`.

use procwarden_common::indicator::{Indicator, IndicatorId};
use procwarden_common::process::Process;
use procwarden_common::severity::Severity;

use super::Sighting;

/// Older ones hang: sshd's own LoginGraceTime is 120 s, lfd waits this long.
const AGE_SECS_MIN: u64 = 60;

/// The titles; OpenSSH 9.8 and later has a program of its own for sessions.
const TITLES: [&[u8]; 4] = [
    b"sshd: unknown [net]",
    b"sshd: unknown [priv]",
    b"sshd-session: unknown [net]",
    b"sshd-session: unknown [priv]",
];

pub(crate) fn detect(process: &Process) -> Option<Indicator> {
    let cmdline = process
        .cmdline
        .value()
        .filter(|cmdline| !cmdline.truncated)?;
    // A title is followed by what was in its place before.
    let title = cmdline.argv0().trim_ascii_end();
    if process.kernel_thread || process.age_secs <= AGE_SECS_MIN || !TITLES.contains(&title) {
        return None;
    }
    let evidence = format!("it waits for a login since {} s", process.age_secs);
    Some(Sighting::new(IndicatorId::HUNG_SSHD, Severity::Low, evidence).indicator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    fn is_seen(title: &[u8], age_secs: u64) -> bool {
        let mut process = sample::with_title(title, b"sshd");
        process.age_secs = age_secs;
        detect(&process).is_some()
    }

    #[test]
    fn an_old_login_without_a_name_hangs_and_others_do_not() {
        assert!(is_seen(b"sshd: unknown [net]\0", 61));
        assert!(is_seen(b"sshd: unknown [priv]\0\0\0", 61));
        assert!(is_seen(b"sshd-session: unknown [priv]", 600));
        assert!(!is_seen(b"sshd: unknown [net]\0", 60));
        assert!(!is_seen(b"sshd: alice [priv]\0", 600));
        assert!(!is_seen(b"/usr/sbin/sshd\0-D\0", 600));
        assert!(!is_seen(b"sh\0sshd: unknown [net]\0", 600));
    }
}
