//! Binds what the collector listens on, and says where that is.

use std::net::SocketAddr;

use anyhow::Context;
use tokio::net::{TcpListener, TcpSocket};

use super::say;
use crate::admin::AdminSocket;
use crate::config::ListenConfig;

/// Agents that connect at the same moment: a whole fleet after an outage.
const BACKLOG: u32 = 4096;

/// Everything bound, nothing accepted yet.
pub(super) struct Listeners {
    pub(super) fleet: TcpListener,
    pub(super) enroll: TcpListener,
    pub(super) admin: AdminSocket,
    pub(super) metrics: Option<TcpListener>,
    pub(super) fleet_address: SocketAddr,
    pub(super) enroll_address: SocketAddr,
    admin_path: std::path::PathBuf,
    metrics_address: Option<SocketAddr>,
}

impl Listeners {
    pub(super) fn bind(config: &ListenConfig) -> anyhow::Result<Self> {
        let (fleet, fleet_address) = tcp("fleet", config.fleet)?;
        let (enroll, enroll_address) = tcp("enroll", config.enroll)?;
        let metrics = config.metrics.map(|address| tcp("metrics", address));
        let (metrics, metrics_address) = metrics.transpose()?.unzip();
        let admin = AdminSocket::bind(&config.admin)?;
        let admin_path = config.admin.clone();
        Ok(Self {
            fleet,
            enroll,
            admin,
            metrics,
            fleet_address,
            enroll_address,
            admin_path,
            metrics_address,
        })
    }

    /// One line for whoever started the collector and chose port 0.
    pub(super) fn announce(&self) {
        let (fleet, enroll, admin) = (
            self.fleet_address,
            self.enroll_address,
            self.admin_path.display(),
        );
        let metrics = self.metrics_address;
        let metrics = metrics.map_or(String::new(), |address| format!(" metrics={address}"));
        say(&format!(
            "listening fleet={fleet} enroll={enroll} admin=unix:{admin}{metrics}"
        ));
        tracing::info!(%fleet, %enroll, %admin, "The collector listens.");
    }
}

fn tcp(key: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let bind = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        std::io::Result::Ok((listener, bound))
    };
    bind().with_context(|| format!("cannot listen on {address} (listen.{key})"))
}
