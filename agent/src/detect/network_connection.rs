//! Processes of accounts that have a peer on the network.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use procwarden_common::indicator::IndicatorId;
use procwarden_common::policy::Settings;
use procwarden_common::process::{Process, Socket};
use procwarden_common::severity::Severity;

use super::Sighting;

/// Sockets that evidence names.
const LISTED_MAX: usize = 8;

pub(super) fn detect(
    process: &Process,
    settings: &Settings,
    web_groups: &HashSet<i32>,
) -> Option<Sighting> {
    if settings.skip_http && web_groups.contains(&process.pgrp) {
        return None;
    }
    let connected: Vec<&Socket> = process
        .sockets
        .iter()
        .filter(|socket| socket.has_peer())
        .filter(|socket| !(settings.skip_http && socket.is_on_web_port()))
        .collect();
    if connected.is_empty() {
        return None;
    }
    let local = connected.iter().all(|socket| {
        socket
            .remote
            .is_some_and(|address| is_loopback(address.ip()))
    });
    let severity = if local {
        Severity::Low
    } else {
        Severity::Medium
    };
    let evidence = format!(
        "it is connected to {}",
        listed(&connected, |socket| socket.remote)
    );
    Some(Sighting::new(
        IndicatorId::NETWORK_CONNECTION,
        severity,
        evidence,
    ))
}

/// Loopback, whether written as IPv4, IPv6 or one in the other.
pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// The first few of some sockets, by one of their addresses.
pub(super) fn listed(sockets: &[&Socket], address: fn(&Socket) -> Option<SocketAddr>) -> String {
    let mut shown: Vec<String> = sockets
        .iter()
        .filter_map(|socket| Some(format!("{} {}", socket.protocol.as_str(), address(socket)?)))
        .collect();
    shown.sort_unstable();
    shown.dedup();
    let more = shown.len().saturating_sub(LISTED_MAX);
    shown.truncate(LISTED_MAX);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use procwarden_common::process::Protocol;

    use super::*;
    use crate::detect::sample;

    fn seen(process: &Process, skip_http: bool, web_groups: &[i32]) -> Option<Severity> {
        let settings = Settings {
            skip_http,
            ..Settings::default()
        };
        let groups = web_groups.iter().copied().collect();
        detect(process, &settings, &groups).map(|sighting| sighting.indicator.severity)
    }

    #[test]
    fn every_address_counts_and_only_loopback_peers_are_low() {
        let table = [
            (
                Protocol::Tcp,
                "10.0.0.1:5000",
                "203.0.113.10:22",
                Severity::Medium,
            ),
            (
                Protocol::Tcp,
                "10.0.0.255:5000",
                "203.0.113.160:22",
                Severity::Medium,
            ),
            (
                Protocol::Tcp6,
                "[::ffff:10.0.0.1]:5000",
                "[::ffff:203.0.113.1]:22",
                Severity::Medium,
            ),
            (
                Protocol::Tcp6,
                "[2001:db8::1]:5000",
                "[2001:db8::2]:22",
                Severity::Medium,
            ),
            (
                Protocol::Udp,
                "127.0.0.1:5000",
                "127.0.0.1:9",
                Severity::Low,
            ),
            (
                Protocol::Tcp6,
                "[::ffff:127.0.0.1]:5000",
                "[::ffff:127.0.0.1]:22",
                Severity::Low,
            ),
        ];
        for (protocol, local, remote, severity) in table {
            let mut process = sample::of_account(1000, b"alice");
            process.sockets = vec![sample::connection(protocol, local, remote)];
            assert_eq!(seen(&process, false, &[]), Some(severity), "{remote}");
        }
    }

    #[test]
    fn web_traffic_is_skipped_on_demand_and_only_that() {
        let mut process = sample::of_account(1000, b"alice");
        process.pgrp = 80;
        process.sockets = vec![sample::connection(
            Protocol::Tcp,
            "10.0.0.1:443",
            "203.0.113.1:50000",
        )];
        assert_eq!(seen(&process, false, &[]), Some(Severity::Medium));
        assert_eq!(seen(&process, true, &[]), None);
        process.sockets.push(sample::connection(
            Protocol::Tcp,
            "10.0.0.1:50000",
            "203.0.113.1:443",
        ));
        assert_eq!(seen(&process, true, &[]), Some(Severity::Medium));
        assert_eq!(seen(&process, true, &[80]), None);
    }

    #[test]
    fn a_listener_is_no_connection_and_long_lists_are_cut() {
        let mut process = sample::of_account(1000, b"alice");
        process.sockets = vec![sample::listener("0.0.0.0:1")];
        assert_eq!(seen(&process, false, &[]), None);
        process.sockets = (1..20)
            .map(|n| sample::connection(Protocol::Tcp, "10.0.0.1:1", &format!("10.0.0.2:{n}")))
            .collect();
        let sighting = detect(&process, &Settings::default(), &HashSet::new()).unwrap();
        assert!(sighting.indicator.evidence.ends_with(" and 11 more"));
    }
}
