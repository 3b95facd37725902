//! Facts about a host, as agents send them.

use procwarden_proto::v1;

use super::finding::{protocol_from_wire, socket_state_from_wire};
use super::{InvalidMessage, bounded_bytes, bounded_count, bounded_size, to_bytes};
use crate::finding::{BusyProcess, HostFacts, MemoryFigure, SocketCount};
use crate::limits;

/// Longest name in `/proc/meminfo` that is taken.
const MEMORY_NAME_BYTES_MAX: usize = 32;

impl TryFrom<v1::HostFacts> for HostFacts {
    type Error = InvalidMessage;

    fn try_from(message: v1::HostFacts) -> Result<Self, InvalidMessage> {
        bounded_count("host.busy", message.busy.len(), limits::BUSY_PROCESSES_MAX)?;
        bounded_count(
            "host.sockets",
            message.sockets.len(),
            limits::SOCKET_COUNTS_MAX,
        )?;
        bounded_count(
            "host.memory",
            message.memory.len(),
            limits::MEMORY_FIGURES_MAX,
        )?;
        let load = message.load_hundredths.as_slice();
        Ok(Self {
            load_hundredths: load.try_into().map_err(|_| {
                InvalidMessage::new("host.load", format!("has {} averages, not 3", load.len()))
            })?,
            processors: message.processors,
            processes: message.processes,
            busy: message
                .busy
                .into_iter()
                .map(busy_from_wire)
                .collect::<Result<_, _>>()?,
            sockets: message
                .sockets
                .iter()
                .map(count_from_wire)
                .collect::<Result<_, _>>()?,
            memory: message
                .memory
                .into_iter()
                .map(figure_from_wire)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&HostFacts> for v1::HostFacts {
    fn from(facts: &HostFacts) -> Self {
        let busy = |process: &BusyProcess| v1::BusyProcess {
            pid: process.pid,
            user: to_bytes(&process.user),
            cpu_permille: process.cpu_permille,
            rss_bytes: process.rss_bytes,
            state: process.state.to_string(),
            comm: to_bytes(&process.comm),
            cmdline: to_bytes(&process.cmdline),
        };
        let count = |count: &SocketCount| v1::SocketCount {
            proto: count.protocol.as_str().to_owned(),
            state: count.state.as_str().to_owned(),
            count: count.count,
        };
        let figure = |figure: &MemoryFigure| v1::MemoryFigure {
            name: figure.name.clone(),
            bytes: figure.bytes,
        };
        Self {
            load_hundredths: facts.load_hundredths.to_vec(),
            processors: facts.processors,
            processes: facts.processes,
            busy: facts.busy.iter().map(busy).collect(),
            sockets: facts.sockets.iter().map(count).collect(),
            memory: facts.memory.iter().map(figure).collect(),
        }
    }
}

fn busy_from_wire(message: v1::BusyProcess) -> Result<BusyProcess, InvalidMessage> {
    let mut letters = message.state.chars();
    let state = match (letters.next(), letters.next()) {
        (Some(letter), None) if letter.is_ascii_alphabetic() => letter,
        _ => return Err(InvalidMessage::new("host.busy.state", "is no letter")),
    };
    let user = ("host.busy.user", limits::USER_BYTES_MAX);
    let cmdline = ("host.busy.cmdline", limits::BUSY_CMDLINE_BYTES_MAX);
    Ok(BusyProcess {
        pid: message.pid,
        user: bounded_bytes(user.0, message.user, user.1)?,
        cpu_permille: message.cpu_permille,
        rss_bytes: message.rss_bytes,
        state,
        comm: bounded_bytes("host.busy.comm", message.comm, limits::COMM_BYTES_MAX)?,
        cmdline: bounded_bytes(cmdline.0, message.cmdline, cmdline.1)?,
    })
}

fn count_from_wire(message: &v1::SocketCount) -> Result<SocketCount, InvalidMessage> {
    Ok(SocketCount {
        protocol: protocol_from_wire("host.sockets.proto", &message.proto)?,
        state: socket_state_from_wire("host.sockets.state", &message.state)?,
        count: message.count,
    })
}

fn figure_from_wire(message: v1::MemoryFigure) -> Result<MemoryFigure, InvalidMessage> {
    let field = "host.memory.name";
    bounded_size(field, message.name.len(), MEMORY_NAME_BYTES_MAX)?;
    if message.name.is_empty() || !message.name.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(InvalidMessage::new(field, "is not printable ASCII"));
    }
    Ok(MemoryFigure {
        name: message.name,
        bytes: message.bytes,
    })
}
