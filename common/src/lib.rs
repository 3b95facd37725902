//! The pure core of procwarden: what agent and collector agree on.
//!
//! - host: a server with an enrolled agent; scan: one pass over /proc.
//! - process key: boot id + PID + start time; a PID alone is reused.
//! - detector -> indicator: what is said about one process, and how bad it is.
//! - policy: pignore rules and settings; rule: one pignore line.
//! - verdict: [`policy::judge`]'s answer: report, or ignored by a rule.
//! - finding: a process or account with indicators, not ignored.
//! - severity: info < low < medium < high < critical.
//!
//! Nothing here reads a file, a clock or a socket, or knows tokio: deciding
//! takes values and returns values.

pub mod backoff;
pub mod clock;
pub mod diagnostic;
pub mod finding;
pub mod id;
pub mod import;
pub mod indicator;
pub mod limits;
pub mod policy;
pub mod printable;
pub mod process;
pub mod severity;
pub mod token;
pub mod toml_config;
pub mod wire;
