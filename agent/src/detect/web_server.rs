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
            && exe_state(process).is_some_and(|(exe, state)| {
                state != ExeState::Memfd && SERVERS.contains(&exe.file_name())
            })
    });
    leaders.map(|process| process.pgrp).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::detect::sample;

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
