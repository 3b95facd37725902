//! The messages of the kernel's process connector, as values.
//!
//! A datagram is a netlink header, a connector header (`struct cn_msg` of
//! include/uapi/linux/connector.h) and a `struct proc_event`
//! (include/uapi/linux/cn_proc.h), all in the byte order of the machine. The
//! netlink header is netlink-packet-core's work; no well-kept crate knows the
//! other two, which have fixed offsets.
//!
//! Pure. Promises: bytes of any length and content give an event or nothing;
//! reads no further than the message says it goes.

use netlink_packet_core::NetlinkBuffer;

/// Index and value that name the process connector: CN_IDX_PROC, CN_VAL_PROC.
const PROC_CONNECTOR: [u32; 2] = [1, 1];
/// Bytes of `struct nlmsghdr`.
const NETLINK_HEADER_LEN: usize = 16;
/// Bytes of `struct cn_msg` before its data.
const CN_HEADER_LEN: usize = 20;
/// Bytes of `struct proc_event` before the part that depends on its kind.
const EVENT_HEADER_LEN: usize = 16;
/// NLMSG_DONE: the connector marks every message as the last of its kind.
const NLMSG_DONE: u16 = 3;
/// PROC_CN_MCAST_LISTEN.
const LISTEN: u32 = 1;
/// PROC_CN_MCAST_IGNORE.
const IGNORE: u32 = 2;

const KIND_ACK: u32 = 0;
const KIND_EXEC: u32 = 0x2;
const KIND_UID: u32 = 0x4;
const KIND_GID: u32 = 0x40;
const KIND_SID: u32 = 0x80;
const KIND_PTRACE: u32 = 0x100;
const KIND_COMM: u32 = 0x200;

/// Which kinds the agent asks for. Forks say nothing about what runs. Exits
/// are left out on purpose: there is one per thread, they would double what
/// has to be read, and the exit of a first thread whose others live on would
/// be a way not to be looked at; that a process is gone, the look finds out.
const WANTED_KINDS: u32 = KIND_EXEC | KIND_UID | KIND_GID | KIND_SID | KIND_PTRACE | KIND_COMM;

/// What to ask the kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kinds {
    /// Every event there is, which all kernels understand.
    All,
    /// What the agent uses.
    Wanted,
    /// The same without new names: they cost whoever makes them nothing, and
    /// a flood of them crowds everything else out.
    WantedWithoutNames,
}

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The process executed a program, renamed itself, changed its user,
    /// group or session, or is traced from now on.
    Changed { pid: u32 },
    /// The kernel's answer to a request: `error` is an errno, 0 for success.
    Answer { request: u32, error: u32 },
}

/// A request to send events. Kernels before 6.6 pass over one that asks for
/// less than all, because it is longer than they expect; newer ones let it
/// take the place of the one before.
pub(super) fn listen_request(request: u32, kinds: Kinds) -> Vec<u8> {
    match kinds {
        Kinds::All => message(request, &[LISTEN]),
        Kinds::Wanted => message(request, &[LISTEN, WANTED_KINDS]),
        Kinds::WantedWithoutNames => message(request, &[LISTEN, WANTED_KINDS & !KIND_COMM]),
    }
}

/// A request to send no more. Kernels before 6.6 count who listens, and would
/// go on making events for a socket that was just closed.
pub(super) fn ignore_request(request: u32) -> Vec<u8> {
    message(request, &[IGNORE])
}

fn message(request: u32, words: &[u32]) -> Vec<u8> {
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut bytes = vec![0; NETLINK_HEADER_LEN];
    // The answer holds the last of these plus one; its sequence number is
    // that of the processor it was made on.
    let numbers = [PROC_CONNECTOR[0], PROC_CONNECTOR[1], 0, request];
    bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    bytes.extend((data.len() as u16).to_ne_bytes());
    bytes.extend(0_u16.to_ne_bytes());
    bytes.extend(data);
    let length = bytes.len() as u32;
    let mut header = NetlinkBuffer::new(&mut bytes);
    header.set_length(length);
    header.set_message_type(NLMSG_DONE);
    header.set_sequence_number(request);
    bytes
}

/// Reads one datagram; nothing for what is of no interest or no event at all.
pub(super) fn parse(datagram: &[u8]) -> Option<Event> {
    let message = NetlinkBuffer::new_checked(datagram).ok()?.payload();
    if [u32_at(message, 0)?, u32_at(message, 4)?] != PROC_CONNECTOR {
        return None;
    }
    let length = usize::from(u16_at(message, 16)?);
    let event = message.get(CN_HEADER_LEN..)?.get(..length)?;
    let details = event.get(EVENT_HEADER_LEN..)?;
    match u32_at(event, 0)? {
        KIND_ACK => Some(Event::Answer {
            request: u32_at(message, 12)?.wrapping_sub(1),
            error: u32_at(details, 0)?,
        }),
        // Names of other threads are not the name of the process, and
        // runtimes name threads all the time.
        KIND_COMM if u32_at(details, 0)? != u32_at(details, 4)? => None,
        // Whatever one thread changes is looked at through its process.
        KIND_EXEC | KIND_UID | KIND_GID | KIND_SID | KIND_PTRACE | KIND_COMM => {
            let pid = u32_at(details, 4)?;
            (pid != 0).then_some(Event::Changed { pid })
        }
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Linux 6.18 sent on a little-endian machine.
    const EXEC: &str = "4c00000003000000020000000000000001000000010000000200000000000000\
                        2800000002000000000000004431de4769000000263f0000263f0000";
    const ANSWER: &str = "4c00000003000000000000000000000001000000010000000000000001000000\
                          2800000000000000000000001eb1c5476900000000000000";

    /// Its bytes, with the zeroes that follow.
    fn bytes(hex: &str) -> Vec<u8> {
        let mut bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        bytes.resize(76, 0);
        bytes
    }

    /// A datagram with one event, as the kernel lays it out.
    fn datagram(kind: u32, details: [u32; 6]) -> Vec<u8> {
        let mut bytes = listen_request(7, Kinds::All);
        bytes.truncate(NETLINK_HEADER_LEN + 16);
        bytes.extend(40_u16.to_ne_bytes());
        bytes.extend([0; 2]);
        for word in [kind, 0, 0, 0].iter().chain(&details) {
            bytes.extend(word.to_ne_bytes());
        }
        let length = bytes.len() as u32;
        NetlinkBuffer::new(&mut bytes).set_length(length);
        bytes
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_what_a_kernel_sent() {
        assert_eq!(parse(&bytes(EXEC)), Some(Event::Changed { pid: 0x3f26 }));
        let answer = Event::Answer {
            request: 0,
            error: 0,
        };
        assert_eq!(parse(&bytes(ANSWER)), Some(answer));
    }

    #[test]
    fn kinds_name_the_process_they_are_about() {
        let table = [
            (KIND_EXEC, [5, 5], Some(5)),
            (KIND_UID, [6, 5], Some(5)),
            (KIND_SID, [5, 5], Some(5)),
            (KIND_PTRACE, [5, 5], Some(5)),
            (KIND_COMM, [5, 5], Some(5)),
            (KIND_COMM, [6, 5], None),
            (0x1, [5, 5], None),
            (0x8000_0000, [5, 5], None),
            (KIND_EXEC, [0, 0], None),
        ];
        for (kind, [thread, process], expected) in table {
            let seen = parse(&datagram(kind, [thread, process, 0, 0, 0, 0]));
            let expected = expected.map(|pid| Event::Changed { pid });
            assert_eq!(seen, expected, "{kind:#x} {thread} {process}");
        }
    }

    #[test]
    fn an_answer_names_the_request_and_its_error() {
        let mut answer = datagram(KIND_ACK, [1, 0, 0, 0, 0, 0]);
        // The sequence number says nothing, the acknowledgement does.
        answer[NETLINK_HEADER_LEN + 8..][..8]
            .copy_from_slice(&[9_u32, 8].map(u32::to_ne_bytes).concat());
        let seen = parse(&answer);
        let expected = Event::Answer {
            request: 7,
            error: 1,
        };
        assert_eq!(seen, Some(expected));
    }

    #[test]
    fn a_request_says_its_own_length() {
        use Kinds::{All, Wanted, WantedWithoutNames};
        for (kinds, length) in [(All, 40), (Wanted, 44), (WantedWithoutNames, 44)] {
            let bytes = listen_request(9, kinds);
            assert_eq!(bytes.len(), length);
            let header = NetlinkBuffer::new_checked(&bytes[..]).unwrap();
            assert_eq!(header.payload().len(), length - NETLINK_HEADER_LEN);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_event_or_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse(&bytes);
        }

        #[test]
        fn a_cut_or_changed_event_never_reads_beyond_its_end(
            cut in 0usize..77, at in 0usize..76, byte in any::<u8>(),
        ) {
            let mut event = datagram(KIND_EXEC, [5, 5, 0, 0, 0, 0]);
            event[at] = byte;
            event.truncate(cut);
            parse(&event);
        }

        #[test]
        fn every_wanted_kind_is_read(kind in 0u32..0x400, pid in 1u32..u32::MAX) {
            let seen = parse(&datagram(kind, [pid, pid, 0, 0, 0, 0]));
            let is_wanted = kind.is_power_of_two() && kind & WANTED_KINDS != 0;
            prop_assert_eq!(seen == Some(Event::Changed { pid }), is_wanted);
        }
    }
}
