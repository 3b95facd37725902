//! The load generator: simulated hosts with real enrolment, real mutual TLS
//! and real streams, against a real collector or against a floor.
//!
//! ```text
//! Target (own collector, given one, bare floor) -> Host (identity) -> Stream -> a mode -> JSON
//! ```
//!
//! Promises: findings are of realistic size and never repeat, so none is
//! answered from deduplication; every host comes from a loopback address of
//! its own, as servers do; every loop ends. It shares the machine with what it
//! measures, so bodies are encoded beforehand and streams speak bare HTTP/2.
//! Never asserts on time: it prints what it saw, beside what a floor does.

use std::sync::Arc;
use std::time::Duration;

use connect::enroll_all;
use host::Host;
use serde_json::{Value, json};

mod append;
mod bare;
pub(crate) mod connect;
mod drive;
pub(crate) mod findings;
mod fleet;
mod host;
mod idle;
mod ingest;
mod latency;
mod limits;
mod push;
mod requests;
mod soak;
mod storm;
mod stream;
mod target;

pub use bare::serve as serve_floor;
pub use idle::connect;
pub use ingest::{Ingest, ingest};
pub use limits::raise_open_files;
pub use push::{Push, push};
pub use soak::{Soak, soak};
pub use storm::{Storm, storm};
use target::Target;
pub use target::Where;

/// Longest time that a single step of a run may take.
const STEP_MAX: Duration = Duration::from_secs(600);

/// Hosts to simulate, and what they connect to.
pub struct Plan {
    /// Hosts to simulate.
    pub agents: usize,
    /// The collector that is measured.
    pub target: Where,
    /// Whether a bare server is measured as well, in the same run.
    pub floor: bool,
}

/// Identities for a target: enrolled at a collector, made up at a floor.
async fn hosts_of(target: &Target, agents: usize) -> anyhow::Result<Vec<Arc<Host>>> {
    match target.floor_host()? {
        Some(tls) => (0..agents)
            .map(|number| Host::new(number, tls.clone(), target.fleet_address()).map(Arc::new))
            .collect(),
        None => enroll_all(target.token()?, target.ca(), agents).await,
    }
}

/// Puts the result of the floor beside that of the collector.
fn beside(mut result: Value, key: &str, floor: Option<Value>) -> Value {
    if let (Some(fields), Some(floor)) = (result.as_object_mut(), floor) {
        fields.insert(key.to_owned(), floor);
    }
    result
}

/// The machine, so that a figure is not read without it.
fn machine() -> Value {
    let text = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": text("/proc/sys/kernel/osrelease").trim(),
        "load_average_1m": text("/proc/loadavg").split_whitespace().next(),
    })
}
