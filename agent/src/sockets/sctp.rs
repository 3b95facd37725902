//! SCTP sockets as `/proc/net/sctp/eps` and `assocs` list them (net/sctp/proc.c):
//! one line per endpoint, which is a socket, and one per association, which is
//! a connection; a socket can have many.
//!
//! sock_diag is not asked: of SCTP it answers with endpoints and associations
//! in one list and numbers the states of both differently (net/sctp/diag.c),
//! and these files exist only where the kernel's module is loaded.
//! Promises: no bytes panic; a strange line costs that line only. Pure.

use std::net::{IpAddr, SocketAddr};

use procwarden_common::process::{Protocol, Socket, SocketState};

use super::Entry;
use super::parse::state_of;
use crate::procfs::parse::{number, words};

/// What stands between the local and the remote addresses of an association.
const BETWEEN: &[u8] = b"<->";
/// Marks the address that is used first.
const PRIMARY: &[u8] = b"*";

/// Parses a line of either file; nothing for a heading.
pub(super) fn line(line: &[u8]) -> Option<(u64, Entry)> {
    let between = line.windows(BETWEEN.len()).position(|part| part == BETWEEN);
    match between.and_then(|at| line.split_at_checked(at)) {
        Some((head, tail)) => association(head, tail),
        None => endpoint(line),
    }
}

/// `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS`.
fn endpoint(line: &[u8]) -> Option<(u64, Entry)> {
    let mut fields = words(line);
    let state = state_of(number(fields.nth(3)?)?)?;
    let port = number(fields.nth(1)?)?;
    let uid = number(fields.next()?)?;
    let inode = number(fields.next()?)?;
    let local = address(fields, port, |_| true);
    Some((inode, entry(uid, state, local, None)))
}

/// `ASSOC SOCK STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT
/// LADDRS`, then `<-> RADDRS`, and figures.
fn association(head: &[u8], tail: &[u8]) -> Option<(u64, Entry)> {
    let mut fields = words(head);
    let state = association_state(number(fields.nth(4)?)?)?;
    let uid = number(fields.nth(4)?)?;
    let inode = number(fields.next()?)?;
    let (local_port, remote_port) = (number(fields.next()?)?, number(fields.next()?)?);
    let remote = address(words(tail).skip(1), remote_port, |_| true);
    // A socket of IPv6 has addresses of both families.
    let of_that_family = |ip: IpAddr| remote.is_none_or(|remote| remote.is_ipv6() == ip.is_ipv6());
    let local = address(fields, local_port, of_that_family);
    Some((inode, entry(uid, state, local, remote)))
}

fn entry(
    uid: u32,
    state: SocketState,
    local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
) -> Entry {
    let is_v6 = local.or(remote).is_some_and(|address| address.is_ipv6());
    let protocol = if is_v6 {
        Protocol::Sctp6
    } else {
        Protocol::Sctp
    };
    let socket = Socket {
        protocol,
        state,
        local,
        remote,
        filter_len: None,
    };
    Entry { socket, uid }
}

/// Of several suitable addresses the one that is used first, else the first.
fn address<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    port: u16,
    suits: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let mut first = None;
    for field in fields {
        let bare = field.strip_prefix(PRIMARY);
        let Some(ip) = ip(bare.unwrap_or(field)) else {
            break;
        };
        if !suits(ip) {
            continue;
        }
        if bare.is_some() {
            return Some(SocketAddr::new(ip, port));
        }
        first = first.or(Some(SocketAddr::new(ip, port)));
    }
    first
}

fn ip(field: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The state of a connection (`enum sctp_state`, include/net/sctp/constants.h)
/// in the words of TCP.
const fn association_state(number: u32) -> Option<SocketState> {
    Some(match number {
        0 => SocketState::Close,
        // Its cookie is awaited, or echoed.
        1 | 2 => SocketState::SynSent,
        3 => SocketState::Established,
        // This side shuts down, or the other.
        4 | 5 => SocketState::FinWait1,
        6 | 7 => SocketState::CloseWait,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EPS: &str = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
       0        0 2   10  24   12345  1000 227065 127.0.0.1 
ffff88017e0a0200 ffff880299f7fa00 0   7   29   36412  1000 299689357 10.0.0.102 *10.0.0.70 
       0        0 2   10  9    9899   1000 4711 0000:0000:0000:0000:0000:0000:0000:0000 
       0        0 2   7   0    0      1000 4712 
       0        0 2   10  0    7      1000     0 127.0.0.1 
";

    const ASSOCS: &str = " ASSOC     SOCK   STY SST ST HBKT ASSOC-ID TX_QUEUE RX_QUEUE UID INODE LPORT RPORT LADDRS <-> RADDRS HBINT INS OUTS MAXRT T1X T2X RTXC wmema wmemq sndbuf rcvbuf
       0        0 2   1   3  0      60        0      496    1000 188897 12345 54321  127.0.0.1 <-> *127.0.0.2 \t   30000 65535 65535   10    0    0        0        1        0   212992   212992
       0        0 0   1   7  0      59        0        0    1000 189472 9899   5000  10.0.0.1 *10.0.1.1 <-> 192.0.2.1 *192.0.2.2 \t   30000    10    10   10    0    0        0        1        0   212992   212992
       0        0 0   1   1  0      58        0        0    1000 4711 50000  9899  2001:0db8:0000:0000:0000:0000:0000:0001 <-> *2001:0db8:0000:0000:0000:0000:0000:0002 \t   30000    10    10   10    0    0        0        1        0   212992   212992
";

    fn shown(text: &str) -> Vec<String> {
        let row = |text: &str| {
            let (inode, Entry { socket, uid }) =
                super::super::parse::line(Protocol::Sctp, text.as_bytes())?;
            assert_eq!(uid, 1000);
            let of = |address: Option<SocketAddr>| address.map_or("-".into(), |a| a.to_string());
            let (local, remote) = (of(socket.local), of(socket.remote));
            let (protocol, state) = (socket.protocol.as_str(), socket.state.as_str());
            Some(format!("{inode} {protocol} {state} {local} {remote}"))
        };
        text.lines().filter_map(row).collect()
    }

    #[test]
    fn an_endpoint_is_a_socket_with_its_first_address() {
        let expected = [
            "227065 sctp LISTEN 127.0.0.1:12345 -",
            "299689357 sctp CLOSE 10.0.0.70:36412 -",
            "4711 sctp6 LISTEN [::]:9899 -",
            "4712 sctp CLOSE - -",
        ];
        assert_eq!(shown(EPS), expected);
    }

    /// As Linux 6.1 wrote them on loopback, both ends of a connection each.
    const LOOPBACK: &str = "263c222f e3890189 2   1   3  0       5        0        0   65534 12775 39012 53418  127.0.0.1 <-> *127.0.0.1 \t    7500    10    10   10    0    0        0        1        0   212992   212992
 46032f9 5060ec80 2   1   3  0       4        0        0   65534 12780 53418 39012  127.0.0.1 <-> *127.0.0.1 \t    7500    10    10   10    0    0        0        1        0   212992   212992
792e44a6 5223525f 2   1   3  0       3        0        0   65534 15067 46382 39013  127.0.0.1 0000:0000:0000:0000:0000:0000:0000:0001 <-> *0000:0000:0000:0000:0000:0000:0000:0001 \t    7500    10    10   10    0    0        0        1        0   212992   212992
c2b0dd37 47cd2dd2 2   1   3  0       6        0        0   65534 12774 39013 46382  0000:0000:0000:0000:0000:0000:0000:0001 <-> *0000:0000:0000:0000:0000:0000:0000:0001 127.0.0.1 \t    7500    10    10   10    0    0        0        1        0   212992   212992
";

    #[test]
    fn the_local_address_is_of_the_family_of_the_peer() {
        let expected = [
            "12775 sctp ESTABLISHED 127.0.0.1:39012 127.0.0.1:53418",
            "12780 sctp ESTABLISHED 127.0.0.1:53418 127.0.0.1:39012",
            "15067 sctp6 ESTABLISHED [::1]:46382 [::1]:39013",
            "12774 sctp6 ESTABLISHED [::1]:39013 [::1]:46382",
        ];
        let lines = LOOPBACK.replace(" 65534 ", " 1000 ");
        assert_eq!(shown(&lines), expected);
    }

    #[test]
    fn an_association_has_a_peer_and_states_of_its_own() {
        let expected = [
            "188897 sctp ESTABLISHED 127.0.0.1:12345 127.0.0.2:54321",
            "189472 sctp CLOSE_WAIT 10.0.1.1:9899 192.0.2.2:5000",
            "4711 sctp6 SYN_SENT [2001:db8::1]:50000 [2001:db8::2]:9899",
        ];
        assert_eq!(shown(ASSOCS), expected);
    }

    #[test]
    fn the_rest_of_a_line_that_is_cut_is_no_socket() {
        let rest = "10.0.0.1 10.0.0.2 10.0.0.3 <-> *10.0.0.4 30000 1 1 10 0 0 0";
        assert!(shown(rest).is_empty());
        assert!(shown("10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6").is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = line(&bytes);
            let _ = line(&[b"0 0 2 1 3 0 1 0 0 1 1 1 1 <-> ", &bytes[..]].concat());
        }
    }
}
