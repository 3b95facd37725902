//! The socket of the process connector.
//!
//! Promises: hands out what the kernel itself sent, nothing else; never
//! blocks without a limit; says in words why there are no events.
//! Whoever is not root may listen too on kernels from 6.6 on.

use std::iter;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{bind, recvfrom, sendto, socket_with, sockopt};

use super::Switch;
use super::message::{Event, Kinds, ignore_request, listen_request, parse};

/// CN_IDX_PROC as a multicast group.
const PROCESS_GROUP: u32 = 1;
/// Asked of the kernel, which takes it twice: room for about 10,000 events,
/// which is half a second of the wildest start of programs.
const RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The kernel answers within the call that asks; this is for loaded machines.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any message of the connector (76 bytes by now).
const DATAGRAM_BYTES_MAX: usize = 512;

/// Why there are no events. Each says what to do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NoEvents {
    #[error("the kernel has no process connector (CONFIG_CONNECTOR, CONFIG_PROC_EVENTS)")]
    NoConnector,
    #[error(
        "listening for them is not permitted: give the agent CAP_NET_ADMIN, as the shipped unit does"
    )]
    NotPermitted,
    #[error("the kernel sends none into this network namespace: run the agent in the host's own")]
    OtherNetwork,
    #[error(
        "the kernel does not answer: the agent runs in a container (another pid or user namespace), \
         or the kernel was built without CONFIG_PROC_EVENTS"
    )]
    NoAnswer,
    #[error("the socket failed: {0}")]
    Io(Errno),
}

impl From<Errno> for NoEvents {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => Self::NoConnector,
            Errno::PERM | Errno::ACCESS => Self::NotPermitted,
            Errno::CONNREFUSED => Self::OtherNetwork,
            other => Self::Io(other),
        }
    }
}

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Event(Event),
    /// The kernel threw events away because nobody read them in time.
    Overflow,
    /// Nothing more waits.
    Nothing,
}

/// A socket that the kernel sends process events to.
#[derive(Debug)]
pub(super) struct Connector {
    socket: OwnedFd,
}

impl Connector {
    /// Asks the kernel for events and waits until it agrees.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn listen(request: u32) -> Result<Self, NoEvents> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            flags,
            Some(CONNECTOR),
        )?;
        let forced = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES);
        if forced.is_err() {
            // Not root: as much as the machine gives to anybody.
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
        }
        bind(&socket, &SocketAddrNetlink::new(0, PROCESS_GROUP))?;
        let connector = Self { socket };
        connector.ask(&listen_request(request, Kinds::All))?;
        connector.await_answer(request)?;
        connector.ask(&listen_request(request, Kinds::Wanted))?;
        Ok(connector)
    }

    /// Waits until something can be read, or a switch was turned; false when
    /// nothing came in time.
    pub(super) fn wait(&self, switch: Option<&Switch>, timeout: Duration) -> Result<bool, Errno> {
        let timeout = rustix::time::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let socket = PollFd::new(&self.socket, PollFlags::IN);
        let switch = switch.map(|switch| PollFd::new(switch, PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> = iter::once(socket).chain(switch).collect();
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) => Ok(polled.first().is_some_and(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next event that waits. What is of no interest is passed over.
    pub(super) fn read(&self) -> Result<Read, Errno> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let flags = RecvFlags::DONTWAIT;
            let (bytes, _, sender) = match recvfrom(&self.socket, &mut buffer, flags) {
                Ok((bytes, whole, sender)) => (bytes, whole, sender),
                Err(Errno::AGAIN) => return Ok(Read::Nothing),
                Err(Errno::NOBUFS) => return Ok(Read::Overflow),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            let sender = sender.and_then(|address| SocketAddrNetlink::try_from(address).ok());
            // Programs with the right capability can send here too.
            let is_from_kernel = sender.is_some_and(|sender| sender.pid() == 0);
            let event = buffer.get(..bytes).and_then(parse);
            if let (true, Some(event)) = (is_from_kernel, event) {
                return Ok(Read::Event(event));
            }
        }
    }

    /// Whether the kernel is to tell of new names as well. Before 6.6 it does
    /// in any case.
    pub(super) fn want_names(&self, request: u32, is_wanted: bool) {
        let kinds = if is_wanted {
            Kinds::Wanted
        } else {
            Kinds::WantedWithoutNames
        };
        if let Err(error) = self.ask(&listen_request(request, kinds)) {
            tracing::debug!(%error, "The kernel was not told which events are wanted.");
        }
    }

    /// Asks the kernel for no more events, before the socket is closed.
    pub(super) fn ignore(&self, request: u32) {
        if let Err(error) = self.ask(&ignore_request(request)) {
            tracing::debug!(%error, "The kernel was not told that nobody listens.");
        }
    }

    fn ask(&self, request: &[u8]) -> Result<(), NoEvents> {
        sendto(
            &self.socket,
            request,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }

    /// Events of others may come before the answer; a scan follows anyhow.
    fn await_answer(&self, request: u32) -> Result<(), NoEvents> {
        let began = Instant::now();
        while began.elapsed() < ANSWER_TIMEOUT {
            match self.read()? {
                Read::Event(Event::Answer { request: of, error }) if of == request => {
                    let errno = i32::try_from(error).unwrap_or(i32::MAX);
                    return match errno {
                        0 => Ok(()),
                        _ => Err(Errno::from_raw_os_error(errno.saturating_abs()).into()),
                    };
                }
                Read::Event(_) | Read::Overflow => {}
                Read::Nothing => {
                    self.wait(None, ANSWER_TIMEOUT.saturating_sub(began.elapsed()))?;
                }
            }
        }
        Err(NoEvents::NoAnswer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_say_what_to_do() {
        for (errno, reason) in [
            (Errno::PROTONOSUPPORT, NoEvents::NoConnector),
            (Errno::PERM, NoEvents::NotPermitted),
            (Errno::CONNREFUSED, NoEvents::OtherNetwork),
            (Errno::NOMEM, NoEvents::Io(Errno::NOMEM)),
        ] {
            assert_eq!(NoEvents::from(errno), reason);
        }
    }

    /// Whether this machine must have events: the connector is there, and
    /// this is the host's own pid and user namespace (their fixed numbers:
    /// PROC_PID_INIT_INO, PROC_USER_INIT_INO).
    fn must_have_events() -> bool {
        let is_initial = |name: &str, number: &str| {
            std::fs::read_link(format!("/proc/self/ns/{name}"))
                .is_ok_and(|link| link.to_string_lossy().contains(number))
        };
        let connectors = std::fs::read_to_string("/proc/net/connector").unwrap_or_default();
        connectors.contains("cn_proc")
            && is_initial("pid", "4026531836")
            && is_initial("user", "4026531837")
            && rustix::process::geteuid().is_root()
    }

    #[test]
    fn names_are_told_when_they_are_wanted() {
        let Ok(connector) = Connector::listen(4712) else {
            return;
        };
        let events = || {
            let mut child = std::process::Command::new("sh")
                .args(["-c", "echo renamed > /proc/$$/comm"])
                .spawn()
                .unwrap();
            let (pid, mut events) = (child.id(), 0);
            assert!(child.wait().unwrap().success());
            loop {
                match connector.read().unwrap() {
                    Read::Event(event) => events += u32::from(event == Event::Changed { pid }),
                    Read::Overflow => return None,
                    Read::Nothing => return Some(events),
                }
            }
        };
        let with_names = events();
        connector.want_names(4712, false);
        let without = events();
        connector.want_names(4712, true);
        let again = events();
        let (Some(with_names), Some(without), Some(again)) = (with_names, without, again) else {
            // A machine on which too much happens tells nothing.
            return;
        };
        // Kernels before 6.6 tell of them always.
        assert!([1, 2].contains(&without), "{without}");
        assert_eq!((with_names, again), (2, 2));
    }

    /// Where the kernel sends events at all, it sends those of this child.
    #[test]
    fn the_exec_of_a_child_is_seen_or_the_reason_is_known() {
        let connector = match Connector::listen(4711) {
            Ok(connector) => connector,
            Err(reason) => {
                assert!(!must_have_events(), "{reason}");
                println!("no events here: {reason}");
                return;
            }
        };
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let began = Instant::now();
        loop {
            match connector.read().unwrap() {
                Read::Event(event) if event == (Event::Changed { pid }) => return,
                Read::Event(_) => {}
                Read::Overflow => return,
                Read::Nothing => assert!(connector.wait(None, Duration::from_secs(60)).unwrap()),
            }
            assert!(began.elapsed() < Duration::from_secs(60));
        }
    }
}
