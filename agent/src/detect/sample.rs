//! Processes made up for tests of detectors.

use std::sync::Arc;

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::BootId;
use procwarden_common::process::{
    Cmdline, Exe, ExeState, Process, ProcessKey, Protocol, Reading, Socket, SocketState,
};

/// A sleeping process of an account, old enough for every detector.
pub(crate) fn of_account(uid: u32, user: &[u8]) -> Process {
    let boot_id = BootId::from_slice(&[7; 16]).unwrap();
    Process {
        key: ProcessKey {
            boot_id,
            pid: 4242,
            start_time: 100,
        },
        ppid: 1,
        pgrp: 4242,
        session: 4242,
        state: b'S',
        kernel_thread: false,
        uid,
        user: Arc::from(user),
        comm: b"sleep".to_vec(),
        started_at: UnixMillis(1_000),
        age_secs: 600,
        exe: Reading::Value(exe(b"/usr/bin/sleep", ExeState::Live)),
        cmdline: Reading::Value(Cmdline {
            raw: b"sleep\x00600\0".to_vec(),
            truncated: false,
        }),
        vsz_bytes: 2_000_000,
        rss_bytes: 1_000_000,
        tty_nr: 0,
        sockets: Vec::new(),
    }
}

pub(crate) fn with_exe(uid: u32, link: &[u8], state: ExeState) -> Process {
    let user: &[u8] = if uid == 0 { b"root" } else { b"alice" };
    Process {
        exe: Reading::Value(exe(link, state)),
        ..of_account(uid, user)
    }
}

pub(crate) fn with_title(cmdline: &[u8], comm: &[u8]) -> Process {
    let cmdline = Reading::Value(Cmdline {
        raw: cmdline.to_vec(),
        truncated: false,
    });
    Process {
        cmdline,
        comm: comm.to_vec(),
        ..of_account(1000, b"alice")
    }
}

pub(crate) fn listener(local: &str) -> Socket {
    let local = Some(local.parse().unwrap());
    Socket {
        protocol: Protocol::Tcp,
        state: SocketState::Listen,
        local,
        remote: None,
        filter_len: None,
    }
}

pub(crate) fn bound_udp(local: &str) -> Socket {
    let local = Some(local.parse().unwrap());
    Socket {
        protocol: Protocol::Udp,
        state: SocketState::Close,
        local,
        remote: None,
        filter_len: None,
    }
}

pub(crate) fn connection(protocol: Protocol, local: &str, remote: &str) -> Socket {
    let (local, remote) = (Some(local.parse().unwrap()), Some(remote.parse().unwrap()));
    Socket {
        protocol,
        state: SocketState::Established,
        local,
        remote,
        filter_len: None,
    }
}

fn exe(link: &[u8], state: ExeState) -> Exe {
    Exe {
        link: link.to_vec(),
        state,
        dev: 1,
        inode: 2,
        owner_uid: Some(0),
        in_memory: false,
    }
}
