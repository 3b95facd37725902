//! Packet sockets as packet_diag lists them (include/uapi/linux/packet_diag.h):
//! the question, and one row of the answer with the length of its filter, which
//! `/proc/net/packet` does not show. A long filter with ports in it is how a
//! backdoor waits for its magic packet.
//!
//! The netlink crates know the framing and the attributes, which are used here,
//! but not these two structures. Promises: no bytes make it panic; a filter that
//! the kernel keeps to itself is none. Pure.

use netlink_packet_core::{DecodeError, NetlinkSerializable, NlasIterator};
use netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY;
use netlink_packet_sock_diag::constants::AF_PACKET;
use procwarden_common::process::{Protocol, Socket, SocketState};

use super::Entry;

/// What is wanted of each socket, besides its inode: account and filter.
const SHOW_INFO: u32 = 1 << 0;
const SHOW_FILTER: u32 = 1 << 5;
/// Attributes of an answer.
const UID: u16 = 5;
const FILTER: u16 = 7;
/// Bytes of `struct packet_diag_req`, of `struct packet_diag_msg`, and of one
/// instruction (`struct sock_filter`).
const REQUEST_BYTES: usize = 20;
const ROW_BYTES: usize = 16;
const INSTRUCTION_BYTES: usize = 8;

/// The question for every packet socket of the namespace.
pub(super) struct Request;

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        REQUEST_BYTES
    }

    fn serialize(&self, buffer: &mut [u8]) {
        // Family, protocol (0) and padding; any inode; what to show; any cookie.
        let words = [
            u32::from_ne_bytes([AF_PACKET, 0, 0, 0]),
            0,
            SHOW_INFO | SHOW_FILTER,
            0,
            0,
        ];
        for (to, word) in buffer.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
    }
}

/// One packet socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    inode: u32,
    uid: u32,
    filter_len: Option<u32>,
}

impl Row {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let (fixed, attributes) = payload
            .split_at_checked(ROW_BYTES)
            .ok_or_else(|| DecodeError::from("a packet socket that is cut"))?;
        let inode = number(fixed.get(4..8)).unwrap_or(0);
        let mut row = Self {
            inode,
            uid: u32::MAX,
            filter_len: None,
        };
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                UID => row.uid = number(Some(attribute.value())).unwrap_or(u32::MAX),
                // Empty where the kernel may not tell (without CAP_NET_ADMIN).
                FILTER => {
                    let instructions = u32::try_from(attribute.value_length() / INSTRUCTION_BYTES);
                    row.filter_len = instructions.ok().filter(|count| *count > 0);
                }
                _ => {}
            }
        }
        Ok(row)
    }

    pub(super) fn entry(&self) -> Option<(u64, Entry)> {
        let socket = Socket {
            protocol: Protocol::Packet,
            state: SocketState::Close,
            local: None,
            remote: None,
            filter_len: self.filter_len,
        };
        let uid = self.uid;
        (self.inode != 0).then_some((u64::from(self.inode), Entry { socket, uid }))
    }
}

/// Numbers are in the machine's own byte order.
fn number(bytes: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A row of inode 4711 with these attributes: length, kind, value.
    fn row(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![AF_PACKET, 3, 0, 3];
        bytes.extend(4711_u32.to_ne_bytes());
        bytes.extend([0; 8]);
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
        }
        bytes
    }

    #[test]
    fn a_row_tells_inode_account_and_the_length_of_its_filter() {
        let uid = (UID, &1000_u32.to_ne_bytes()[..]);
        let seen = |attributes: &[(u16, &[u8])]| {
            let (inode, entry) = Row::parse(&row(attributes)).unwrap().entry().unwrap();
            assert_eq!((inode, entry.socket.protocol), (4711, Protocol::Packet));
            (entry.uid, entry.socket.filter_len)
        };
        assert_eq!(seen(&[uid, (FILTER, &[0; 24])]), (1000, Some(3)));
        assert_eq!(
            seen(&[(FILTER, &[0; 8]), (99, &[0; 4]), uid]),
            (1000, Some(1))
        );
        assert_eq!(seen(&[uid, (FILTER, &[])]), (1000, None));
        assert_eq!(seen(&[]), (u32::MAX, None));
        assert!(Row::parse(&row(&[])[..15]).is_err());
        assert!(Row::parse(&[&row(&[])[..], &[3, 0, 5, 0]].concat()).is_err());
    }

    #[test]
    fn the_question_is_laid_out_as_the_kernel_reads_it() {
        let mut bytes = [0xff; REQUEST_BYTES];
        Request.serialize(&mut bytes);
        let mut expected = [0; REQUEST_BYTES];
        expected[0] = 17;
        expected[8..12].copy_from_slice(&0x21_u32.to_ne_bytes());
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(Row::parse(&bytes));
        }
    }
}
