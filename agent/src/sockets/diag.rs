//! The sockets of the agent's own network namespace, from the kernel's
//! sock_diag(7): no text to print and to parse, and connections that wait out
//! their end, which nobody holds, are left out by the kernel.
//!
//! Promises: never waits, for the kernel answers while it is asked; a protocol
//! that it does not serve is named, so that its table in /proc is read. Packet
//! sockets come from packet_diag (packet.rs).

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, Parseable,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, AF_PACKET, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_sys::Socket as NetlinkSocket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use procwarden_common::process::{Protocol, Socket};

use super::table::Table;
use super::{Entry, packet, parse};

/// The kernel answers in pieces of at most 32 KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How often a question is asked again because the sockets changed meanwhile.
const TRIES_MAX: usize = 3;
/// include/uapi/linux/in.h; the crate does not name it.
const IPPROTO_UDPLITE: u8 = 136;
/// By this number the kernel lists raw sockets of every protocol.
const IPPROTO_RAW: u8 = 255;

/// A table in `/proc/net` and the question that stands for it.
pub(super) struct Question {
    pub(super) table: &'static str,
    pub(super) protocol: Protocol,
    family: u8,
    number: u8,
}

/// Every question, by the table that is read where it is not answered. Those
/// come first that few sockets are about, so that others cannot crowd them out.
pub(super) const QUESTIONS: [Question; 9] = [
    question("packet", Protocol::Packet, AF_PACKET, 0),
    question("raw", Protocol::Raw, AF_INET, IPPROTO_RAW),
    question("raw6", Protocol::Raw6, AF_INET6, IPPROTO_RAW),
    question("tcp", Protocol::Tcp, AF_INET, IPPROTO_TCP),
    question("tcp6", Protocol::Tcp6, AF_INET6, IPPROTO_TCP),
    question("udp", Protocol::Udp, AF_INET, IPPROTO_UDP),
    question("udp6", Protocol::Udp6, AF_INET6, IPPROTO_UDP),
    question("udplite", Protocol::Udp, AF_INET, IPPROTO_UDPLITE),
    question("udplite6", Protocol::Udp6, AF_INET6, IPPROTO_UDPLITE),
];

const fn question(table: &'static str, protocol: Protocol, family: u8, number: u8) -> Question {
    Question {
        table,
        protocol,
        family,
        number,
    }
}

/// An open line to the kernel.
pub(super) struct Diag {
    socket: NetlinkSocket,
    buffer: Vec<u8>,
}

impl Diag {
    /// Opens it.
    ///
    /// # Errors
    /// When netlink is not there or not allowed.
    pub(super) fn open() -> io::Result<Self> {
        let socket = NetlinkSocket::new(NETLINK_SOCK_DIAG)?;
        socket.connect(&netlink_sys::SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket,
            buffer: vec![0; ANSWER_BYTES_MAX],
        })
    }

    /// Lists the sockets that a question is about.
    ///
    /// # Errors
    /// When the kernel does not serve it, or the sockets never hold still.
    pub(super) fn ask(&mut self, question: &Question, table: &mut Table) -> io::Result<()> {
        for _ in 0..TRIES_MAX {
            self.socket.send(&request(question), 0)?;
            match self.listen(question.protocol, table)? {
                // Those that came are there; some may have been passed over.
                Heard::Interrupted => {}
                Heard::All => return Ok(()),
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    fn listen(&mut self, protocol: Protocol, table: &mut Table) -> io::Result<Heard> {
        let mut heard = Heard::All;
        loop {
            let size = self.socket.recv(&mut &mut self.buffer[..], 0)?;
            let mut rest = self.buffer.get(..size).unwrap_or_default();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Row>::deserialize(rest).map_err(invalid)?;
                if message.header.flags & NLM_F_DUMP_INTR != 0 {
                    heard = Heard::Interrupted;
                }
                match message.payload {
                    // A question that nothing in the kernel answers ends like this.
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::Done(_) => return Ok(heard),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(row) => {
                        if let Some((inode, entry)) = row.entry(protocol) {
                            table.insert(inode, entry);
                        }
                    }
                    _ => {}
                }
                rest = rest
                    .get(padded(message.header.length)..)
                    .unwrap_or_default();
            }
        }
    }
}

enum Heard {
    All,
    Interrupted,
}

/// Messages begin at multiples of four bytes; a length of zero ends them.
fn padded(length: u32) -> usize {
    match usize::try_from(length) {
        Ok(length) if length > 0 => length.next_multiple_of(4),
        _ => usize::MAX,
    }
}

/// One socket of an answer.
enum Row {
    /// The fixed part; what is attached to it is not needed.
    Inet(InetResponseHeader),
    Packet(packet::Row),
}

impl NetlinkDeserializable for Row {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match payload.first() {
            Some(&AF_PACKET) => packet::Row::parse(payload).map(Self::Packet),
            _ => InetResponseHeader::parse(payload).map(Self::Inet),
        }
    }
}

impl Row {
    fn entry(&self, protocol: Protocol) -> Option<(u64, Entry)> {
        match self {
            Self::Inet(row) => entry(protocol, row),
            Self::Packet(row) => row.entry(),
        }
    }
}

fn request(question: &Question) -> Vec<u8> {
    if question.family == AF_PACKET {
        return serialized(NetlinkPayload::InnerMessage(packet::Request));
    }
    let socket_id = if question.family == AF_INET6 {
        SocketId::new_v6()
    } else {
        SocketId::new_v4()
    };
    let request = InetRequest {
        family: question.family,
        protocol: question.number,
        extensions: ExtensionFlags::empty(),
        // Nobody holds these any more, or not yet.
        states: StateFlags::all() - StateFlags::TIME_WAIT - StateFlags::SYN_RECV,
        socket_id,
    };
    serialized(NetlinkPayload::from(SockDiagMessage::InetRequest(request)))
}

fn serialized<T: NetlinkSerializable>(payload: NetlinkPayload<T>) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn entry(protocol: Protocol, row: &InetResponseHeader) -> Option<(u64, Entry)> {
    let id = &row.socket_id;
    let state = parse::state_of(u32::from(row.state))?;
    let address = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let socket = Socket {
        protocol,
        state,
        local: Some(address(id.source_address, id.source_port)),
        remote: parse::peer(address(id.destination_address, id.destination_port)),
        filter_len: None,
    };
    let uid = row.uid;
    (row.inode != 0).then_some((u64::from(row.inode), Entry { socket, uid }))
}

fn invalid(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use procwarden_common::process::SocketState;
    use proptest::prelude::*;

    use super::*;

    fn all() -> Table {
        let mut table = Table::default();
        let mut diag = Diag::open().unwrap();
        for question in &QUESTIONS {
            if let Err(error) = diag.ask(question, &mut table) {
                // Not every kernel has UDP-Lite or lists raw sockets.
                let may_fail = question.number > IPPROTO_UDP || question.family == AF_PACKET;
                assert!(may_fail, "{error}");
            }
        }
        table
    }

    fn inode(socket: impl AsFd) -> u64 {
        rustix::fs::fstat(socket).unwrap().st_ino
    }

    #[test]
    fn every_kind_of_inet_socket_is_listed_with_its_addresses_and_account() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let dual = TcpListener::bind("[::]:0").unwrap();
        let port = dual.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mapped, _) = dual.accept().unwrap();
        let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
        let connected = UdpSocket::bind("127.0.0.1:0").unwrap();
        connected.connect(bound.local_addr().unwrap()).unwrap();
        let table = all();
        let of = |inode: u64| table.get(inode).map(|entry| &entry.socket).unwrap();

        let uid = rustix::process::geteuid().as_raw();
        assert!(table.get(inode(&v4)).is_some_and(|entry| entry.uid == uid));
        for listener in [&v4, &v6, &dual] {
            let socket = of(inode(listener));
            assert_eq!(socket.local, Some(listener.local_addr().unwrap()));
            assert_eq!((socket.state, socket.remote), (SocketState::Listen, None));
        }
        for stream in [&client, &mapped] {
            let socket = of(inode(stream));
            assert_eq!(socket.local, Some(stream.local_addr().unwrap()));
            assert_eq!(socket.remote, Some(stream.peer_addr().unwrap()));
            assert_eq!(socket.state, SocketState::Established);
        }
        assert_eq!(of(inode(&mapped)).protocol, Protocol::Tcp6);
        assert_eq!(of(inode(&bound)).remote, None);
        assert_eq!(of(inode(&bound)).local, Some(bound.local_addr().unwrap()));
        let peer = Some(bound.local_addr().unwrap());
        assert_eq!(of(inode(&connected)).remote, peer);
    }

    /// Multipath TCP has no question of its own: its first subflow is a socket
    /// of TCP and shows the inode that the process holds (mptcp_graft_subflows
    /// and __mptcp_nmpc_sk in net/mptcp/protocol.c).
    #[test]
    fn multipath_tcp_is_seen_through_its_first_subflow() {
        use rustix::net::{AddressFamily, SocketType, bind, ipproto, listen, socket};
        let kind = (AddressFamily::INET, SocketType::STREAM);
        let mptcp = Some(ipproto::MPTCP);
        let (Ok(listening), Ok(client)) =
            (socket(kind.0, kind.1, mptcp), socket(kind.0, kind.1, mptcp))
        else {
            // Not every kernel has it.
            return;
        };
        bind(&listening, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&listening, 1).unwrap();
        let address = rustix::net::getsockname(&listening).unwrap();
        let address = SocketAddr::try_from(address).unwrap();
        rustix::net::connect(&client, &address).unwrap();
        let accepted = rustix::net::accept(&listening).unwrap();
        let table = all();
        let of = |inode: u64| table.get(inode).map(|entry| &entry.socket).unwrap();
        let listener = of(inode(&listening));
        assert_eq!(
            (listener.state, listener.local),
            (SocketState::Listen, Some(address))
        );
        assert_eq!(of(inode(&client)).remote, Some(address));
        assert_eq!(of(inode(&accepted)).local, Some(address));
    }

    #[test]
    fn a_packet_socket_is_listed_with_the_length_of_its_filter() {
        use socket2::{Domain, SockFilter, Socket, Type};
        // "Take nothing", twice; no frame is ever looked at.
        let filter = [(); 2].map(|()| SockFilter::new(6, 0, 0, 0));
        // As no account but root may.
        let Ok(filtered) = Socket::new(Domain::PACKET, Type::DGRAM, None) else {
            return;
        };
        let plain = Socket::new(Domain::PACKET, Type::DGRAM, None).unwrap();
        filtered.attach_filter(&filter).unwrap();
        let table = all();
        let Some(seen) = table.get(inode(&filtered)) else {
            // A kernel without packet_diag: its table in /proc is read.
            return;
        };
        assert_eq!(seen.socket.filter_len, Some(2));
        assert_eq!(seen.uid, rustix::process::geteuid().as_raw());
        assert_eq!(table.get(inode(&plain)).unwrap().socket.filter_len, None);
    }

    #[test]
    fn a_question_that_the_kernel_does_not_serve_is_an_error() {
        // A number that no protocol has (253 and 254 are for experiments).
        let unserved = question("nothing", Protocol::Raw, AF_INET, 253);
        let mut diag = Diag::open().unwrap();
        let error = diag.ask(&unserved, &mut Table::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = NetlinkMessage::<Row>::deserialize(&bytes)
                && let NetlinkPayload::InnerMessage(row) = message.payload
            {
                let _ = row.entry(Protocol::Tcp);
            }
        }
    }
}
