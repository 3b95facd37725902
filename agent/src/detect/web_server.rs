//! Which process groups belong to web servers, for `skip_http`.

use std::collections::HashSet;

use procwarden_common::process::ExeState;

use super::exe_state;
use crate::snapshot::Snapshot;

/// File names of web servers.
const SERVERS: &[&[u8]] = &[
    b"httpd",
    b"httpd.worker",
    b"httpd.event",
    b"apache2",
    b"nginx",
    b"litespeed",
    b"lshttpd",
    b"openlitespeed",
];

/// Groups led by a web server that root started. Any account can name a
/// program `httpd`; it cannot run one as root.
pub(super) fn groups(snapshot: &Snapshot) -> HashSet<i32> {
    let leaders = snapshot.processes().iter().filter(|process| {
        let leads = i32::try_from(process.key.pid) == Ok(process.pgrp);
        leads
            && process.uid == 0
            && exe_state(process)
                .is_some_and(|(exe, state)| state != ExeState::Memfd && is_server(exe.file_name()))
    });
    leaders.map(|process| process.pgrp).collect()
}

/// LiteSpeed's program has its release behind its name: `lshttpd.6.3.1`.
fn is_server(file_name: &[u8]) -> bool {
    let is_release = |rest: &[u8]| rest.iter().all(|b| b.is_ascii_digit() || *b == b'.');
    SERVERS.contains(&file_name) || file_name.strip_prefix(b"lshttpd.").is_some_and(is_release)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::detect::sample;

    #[test]
    fn a_release_behind_the_name_of_litespeed_is_no_other_program() {
        for name in ["httpd", "lshttpd", "lshttpd.5.1.13", "nginx"] {
            assert!(is_server(name.as_bytes()), "{name}");
        }
        for name in ["lshttpd.x", "httpd2", "nginx.1.2", ""] {
            assert!(!is_server(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn only_roots_servers_lead_web_groups() {
        let mut server = sample::with_exe(0, b"/usr/sbin/httpd", ExeState::Live);
        let mut fake = sample::with_exe(1000, b"/home/a/httpd", ExeState::Live);
        (server.key.pid, server.pgrp) = (80, 80);
        (fake.key.pid, fake.pgrp) = (90, 90);
        let snapshot = Snapshot::new(vec![Arc::new(server), Arc::new(fake)], HashSet::new());
        assert_eq!(groups(&snapshot), HashSet::from([80]));
    }
}
