//! Parsers for the socket tables in `/proc/PID/net`: one line in, one socket
//! out. Addresses are read as numbers, never compared as text.
//!
//! Promises: no bytes panic; a strange line costs that line only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use procwarden_common::process::{Protocol, Socket, SocketState};

use super::{Entry, sctp};
use crate::procfs::parse::{number, words};

/// Parses a line of one table; nothing for its heading, for a line that
/// makes no sense and for sockets without an owner (TIME_WAIT has inode 0).
pub(super) fn line(protocol: Protocol, line: &[u8]) -> Option<(u64, Entry)> {
    let (inode, entry) = match protocol {
        Protocol::Packet => packet(line)?,
        Protocol::Sctp | Protocol::Sctp6 => sctp::line(line)?,
        _ => inet(protocol, line)?,
    };
    (inode != 0).then_some((inode, entry))
}

/// Whether `/proc/net/sockstat` or `sockstat6` says that a table, named as its
/// file in `/proc/net`, has no socket (net/ipv4/proc.c: hashed sockets, so
/// every one that listens, is bound or has a peer). False where it says
/// nothing about the table.
pub(super) fn is_counted_empty(counts: &[u8], table: &str) -> bool {
    counts.split(|&b| b == b'\n').any(|line| {
        let mut fields = words(line);
        let name = fields.next().and_then(|name| name.strip_suffix(b":"));
        name.is_some_and(|name| name.eq_ignore_ascii_case(table.as_bytes()))
            && fields.next() == Some(b"inuse")
            && fields.next().and_then(number::<u64>) == Some(0)
    })
}

fn inet(protocol: Protocol, line: &[u8]) -> Option<(u64, Entry)> {
    let mut fields = words(line);
    let local = address(fields.nth(1)?)?;
    let remote = address(fields.next()?)?;
    let state = state(fields.next()?)?;
    // Queues, timer and retransmissions lie between; then the timeout.
    let uid = number(fields.nth(3)?)?;
    let inode = number(fields.nth(1)?)?;
    let socket = Socket {
        protocol,
        state,
        local: Some(local),
        remote: peer(remote),
        filter_len: None,
    };
    Some((inode, Entry { socket, uid }))
}

/// A socket without a peer shows zeros.
pub(super) fn peer(remote: SocketAddr) -> Option<SocketAddr> {
    (!remote.ip().is_unspecified() || remote.port() != 0).then_some(remote)
}

fn packet(line: &[u8]) -> Option<(u64, Entry)> {
    let mut fields = words(line);
    let uid = number(fields.nth(7)?)?;
    let inode = number(fields.next()?)?;
    let socket = Socket {
        protocol: Protocol::Packet,
        state: SocketState::Close,
        local: None,
        remote: None,
        filter_len: None,
    };
    Some((inode, Entry { socket, uid }))
}

/// `0100007F:1F90`, or four such words for IPv6. The kernel prints each
/// 32-bit word of the address as a number of its own byte order.
fn address(field: &[u8]) -> Option<SocketAddr> {
    let colon = field.iter().position(|&b| b == b':')?;
    let (digits, port) = (field.get(..colon)?, field.get(colon + 1..)?);
    let port = u16::try_from(hex(port)?).ok()?;
    let ip = match digits.len() {
        8 => IpAddr::V4(Ipv4Addr::from(hex(digits)?.to_ne_bytes())),
        32 => {
            let mut octets = [0; 16];
            for (to, from) in octets.chunks_exact_mut(4).zip(digits.chunks_exact(8)) {
                to.copy_from_slice(&hex(from)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn state(field: &[u8]) -> Option<SocketState> {
    state_of(hex(field)?)
}

/// The state behind a number of include/net/tcp_states.h.
pub(super) const fn state_of(number: u32) -> Option<SocketState> {
    Some(match number {
        1 => SocketState::Established,
        2 => SocketState::SynSent,
        3 | 12 => SocketState::SynRecv,
        4 => SocketState::FinWait1,
        5 => SocketState::FinWait2,
        6 => SocketState::TimeWait,
        7 => SocketState::Close,
        8 => SocketState::CloseWait,
        9 => SocketState::LastAck,
        10 => SocketState::Listen,
        11 => SocketState::Closing,
        _ => return None,
    })
}

fn hex(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0u32, |value, digit| {
        Some((value << 4) | char::from(*digit).to_digit(16)?)
    })
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(protocol: Protocol, text: &str) -> String {
        let Some((inode, Entry { socket, uid })) = line(protocol, text.as_bytes()) else {
            return "nothing".into();
        };
        assert_eq!(uid, 1000);
        let remote = socket.remote.map_or("-".into(), |a| a.to_string());
        let local = socket.local.map_or("-".into(), |a| a.to_string());
        format!("{inode} {} {local} {remote}", socket.state.as_str())
    }

    #[test]
    fn every_kind_of_address_is_read_as_a_number() {
        let tail = "00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0";
        let table = [
            (
                Protocol::Tcp,
                "0100007F:1F90 00000000:0000 0A",
                "4711 LISTEN 127.0.0.1:8080 -",
            ),
            (
                Protocol::Tcp,
                "0A00020A:C350 FFA8C0C0:01BB 01",
                "4711 ESTABLISHED 10.2.0.10:50000 192.192.168.255:443",
            ),
            (
                Protocol::Udp,
                "00000000:0035 00000000:0000 07",
                "4711 CLOSE 0.0.0.0:53 -",
            ),
            (
                Protocol::Tcp6,
                "00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A",
                "4711 LISTEN [::1]:80 -",
            ),
            (
                Protocol::Tcp6,
                "0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:C350 01",
                "4711 ESTABLISHED [::ffff:127.0.0.1]:8080 [::ffff:127.0.0.2]:50000",
            ),
            (
                Protocol::Raw,
                "00000000:0001 00000000:0000 07",
                "4711 CLOSE 0.0.0.0:1 -",
            ),
        ];
        for (protocol, middle, expected) in table {
            assert_eq!(shown(protocol, &format!("   0: {middle} {tail}")), expected);
        }
    }

    #[test]
    fn a_packet_socket_has_no_address() {
        let text = "ffff8881 3      3    0003   2     1 0      1000   4712";
        assert_eq!(shown(Protocol::Packet, text), "4712 CLOSE - -");
    }

    #[test]
    fn headings_ownerless_sockets_and_nonsense_give_nothing() {
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(shown(Protocol::Tcp, heading), "nothing");
        assert_eq!(
            shown(
                Protocol::Packet,
                "sk RefCnt Type Proto  Iface R Rmem   User   Inode"
            ),
            "nothing"
        );
        assert_eq!(
            shown(
                Protocol::Tcp,
                "0: 0100007F:1F90 0100007F:1F90 06 0:0 00:0 0 0 0 0 1"
            ),
            "nothing"
        );
        assert_eq!(shown(Protocol::Tcp, ""), "nothing");
    }

    #[test]
    fn a_table_is_empty_only_where_the_kernel_counts_none() {
        let counts = b"sockets: used 52\nTCP: inuse 3 orphan 0 tw 15 alloc 3 mem 264\n\
            UDP: inuse 0 mem 0\nRAW: inuse 1\nTCP6: inuse 0\nUDP6: inuse x\n";
        let empty = |table| is_counted_empty(counts, table);
        assert!(empty("udp") && empty("tcp6"));
        for table in ["tcp", "raw", "udp6", "raw6", "udplite", ""] {
            assert!(!empty(table), "{table}");
        }
        assert!(!is_counted_empty(b"", "tcp"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (protocol, _) in Protocol::ALL {
                let _ = line(protocol, &bytes);
            }
            is_counted_empty(&bytes, "tcp");
        }
    }
}
