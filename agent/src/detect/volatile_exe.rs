//! Executables in directories for temporary files.

use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::{ExeState, Process, SocketState};
use procwarden_common::severity::Severity;

use super::evidence_text::quoted;
use super::scope::Standing;
use super::{Sighting, exe_state};

/// Where anybody, or any script of a web server, may leave a file.
const VOLATILE_DIRS: &[&[u8]] = &[
    b"/tmp",
    b"/var/tmp",
    b"/usr/tmp",
    b"/dev/shm",
    b"/run/shm",
    b"/run/user",
    b"/run/lock",
    b"/var/lock",
    b"/var/run/user",
    b"/var/run/lock",
    // Sessions and uploads of PHP: Debian, Red Hat, cPanel, EasyApache, Plesk.
    b"/var/lib/php/sessions",
    b"/var/lib/php/session",
    b"/var/lib/php5",
    b"/var/lib/php/uploads",
    b"/var/cpanel/php/sessions",
    b"/var/opt/remi",
    b"/opt/alt/php",
];

/// Directories below those that hold installed programs all the same.
const PROGRAM_TREES: &[(&[u8], &[u8])] = &[
    (b"/opt/alt/php", b"/var/"),
    (b"/var/opt/remi", b"/lib/php/"),
];

pub(super) fn detect(process: &Process, standing: Standing) -> Option<Sighting> {
    if !runs_from_one(process) {
        return None;
    }
    let (exe, _) = exe_state(process)?;
    let severity = match standing {
        Standing::Root if !is_networked(process) => return None,
        Standing::Root => Severity::Medium,
        Standing::InScope | Standing::OutOfScope => Severity::High,
    };
    let evidence = if exe.in_memory && !is_volatile(exe.claimed_path()) {
        format!(
            "it runs a file in memory (tmpfs) that only itself sees as {}",
            quoted(exe.claimed_path())
        )
    } else {
        format!(
            "it runs {} from a directory for temporary files",
            quoted(exe.path())
        )
    };
    Some(Sighting::new(
        IndicatorId::EXE_IN_VOLATILE_DIR,
        severity,
        evidence,
    ))
}

/// Whether it runs something from such a directory.
pub(super) fn runs_from_one(process: &Process) -> bool {
    exe_state(process).is_some_and(|(exe, state)| {
        state != ExeState::Memfd && (exe.in_memory || is_volatile(exe.claimed_path()))
    })
}

/// Whether a path lies in such a directory.
pub(super) fn is_volatile(path: &[u8]) -> bool {
    VOLATILE_DIRS.iter().any(|dir| below(path, dir))
}

fn below(path: &[u8], dir: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(dir) else {
        return false;
    };
    match PROGRAM_TREES.iter().find(|(tree, _)| *tree == dir) {
        // `/opt/alt/php82/usr/bin/php` is a program, `.../var/...` is not.
        Some((_, data)) => rest.windows(data.len()).any(|part| part == *data),
        None => rest.starts_with(b"/"),
    }
}

/// Installers of root unpack programs there; few of them talk to the network.
fn is_networked(process: &Process) -> bool {
    process.sockets.iter().any(|socket| {
        socket.remote.is_some()
            || socket.state == SocketState::Listen
            || socket.state == SocketState::Close
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;
    use procwarden_common::process::Reading;

    #[test]
    fn directories_match_as_whole_components() {
        let table: [(&[u8], bool); 12] = [
            (b"/tmp/x", true),
            (b"/tmp", false),
            (b"/tmpfiles/x", false),
            (b"/dev/shm/.x/y", true),
            (b"/home/a/tmp/x", false),
            (b"/run/user/1000/x", true),
            (b"/run/userdb/x", false),
            (b"/var/lib/php/sessions/x", true),
            (b"/opt/alt/php82/usr/bin/php", false),
            (b"/opt/alt/php82/var/lib/php/session/x", true),
            (b"/usr/bin/x", false),
            (b"", false),
        ];
        for (path, expected) in table {
            assert_eq!(is_volatile(path), expected, "{path:?}");
        }
    }

    #[test]
    fn root_needs_a_socket_to_be_seen() {
        let mut process = sample::with_exe(0, b"/tmp/installer", ExeState::Live);
        assert_eq!(detect(&process, Standing::Root), None);
        process.sockets = vec![sample::listener("0.0.0.0:39001")];
        let seen = detect(&process, Standing::Root).map(|s| s.indicator.severity);
        assert_eq!(seen, Some(Severity::Medium));
        let seen = detect(&process, Standing::InScope).map(|s| s.indicator.severity);
        assert_eq!(seen, Some(Severity::High));
    }

    #[test]
    fn a_deleted_file_lay_there_too_and_a_memory_file_did_not() {
        let deleted = sample::with_exe(1000, b"/tmp/x (deleted)", ExeState::Deleted);
        assert!(detect(&deleted, Standing::InScope).is_some());
        let memfd = sample::with_exe(1000, b"/tmp/x (deleted)", ExeState::Memfd);
        assert_eq!(detect(&memfd, Standing::InScope), None);
    }

    #[test]
    fn a_path_that_leads_nowhere_counts_by_what_it_says_and_by_its_file_system() {
        let evidence = |link: &[u8], in_memory| {
            let mut process = sample::with_exe(1000, link, ExeState::Unknown);
            if let Reading::Value(exe) = &mut process.exe {
                exe.in_memory = in_memory;
            }
            detect(&process, Standing::InScope).map(|seen| seen.indicator.evidence)
        };
        let forged: &[u8] = b"(unreachable)/usr/sbin/ldconfig";
        assert_eq!(evidence(forged, false), None);
        assert_eq!(
            evidence(forged, true).unwrap(),
            "it runs a file in memory (tmpfs) that only itself sees as \"/usr/sbin/ldconfig\""
        );
        assert_eq!(
            evidence(b"(unreachable)/tmp/x", true).unwrap(),
            "it runs \"(unreachable)/tmp/x\" from a directory for temporary files"
        );
    }
}
