//! Processes of accounts that wait for the network.

use procwarden_common::indicator::IndicatorId;
use procwarden_common::process::{Process, Protocol, Socket, SocketState};
use procwarden_common::severity::Severity;

use super::Sighting;
use super::network_connection::{is_loopback, listed};

pub(super) fn detect(process: &Process) -> Option<Sighting> {
    let waiting: Vec<&Socket> = process
        .sockets
        .iter()
        .filter(|socket| is_waiting(socket))
        .collect();
    if waiting.is_empty() {
        return None;
    }
    let local = waiting.iter().all(|socket| {
        socket
            .local
            .is_some_and(|address| is_loopback(address.ip()))
    });
    let severity = if local { Severity::Low } else { Severity::High };
    let evidence = format!("it waits on {}", listed(&waiting, |socket| socket.local));
    Some(Sighting::new(
        IndicatorId::UNEXPECTED_LISTENER,
        severity,
        evidence,
    ))
}

/// A listening TCP or SCTP socket, or a bound UDP socket without a peer.
fn is_waiting(socket: &Socket) -> bool {
    match socket.protocol {
        Protocol::Tcp | Protocol::Tcp6 | Protocol::Sctp | Protocol::Sctp6 => {
            socket.state == SocketState::Listen
        }
        Protocol::Udp | Protocol::Udp6 => {
            socket.remote.is_none() && socket.local.is_some_and(|address| address.port() != 0)
        }
        Protocol::Raw | Protocol::Raw6 | Protocol::Packet => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::sample;

    #[test]
    fn only_loopback_is_low() {
        let table: [(&[&str], Severity); 4] = [
            (&["127.0.0.1:3000"], Severity::Low),
            (&["[::1]:3000", "127.8.0.1:1"], Severity::Low),
            (&["[::ffff:127.0.0.1]:3000"], Severity::Low),
            (&["127.0.0.1:3000", "0.0.0.0:39001"], Severity::High),
        ];
        for (addresses, severity) in table {
            let mut process = sample::of_account(1000, b"alice");
            process.sockets = addresses.iter().map(|a| sample::listener(a)).collect();
            let sighting = detect(&process).unwrap();
            assert_eq!(sighting.indicator.severity, severity, "{addresses:?}");
        }
    }

    #[test]
    fn udp_waits_when_it_is_bound_and_has_no_peer() {
        let mut process = sample::of_account(1000, b"alice");
        process.sockets = vec![sample::connection(
            Protocol::Udp,
            "10.0.0.1:5000",
            "10.0.0.2:53",
        )];
        assert_eq!(detect(&process), None);
        process.sockets = vec![sample::bound_udp("0.0.0.0:5000")];
        let sighting = detect(&process).unwrap();
        assert_eq!(sighting.indicator.evidence, "it waits on udp 0.0.0.0:5000");
    }
}
