//! The harness of the end-to-end tests: the real binaries, real processes,
//! real TLS and a real SMTP conversation, all on loopback and in temporary
//! directories.
//!
//! Promises: whatever a test starts ends with it, by its own PID, even when
//! the test panics; nothing outside the test's directory is written.
//! Never asserts that a list is empty: the machine runs other things too.

pub mod agent;
pub mod binaries;
pub mod cc;
pub mod child;
pub mod collector;
pub mod crash;
pub mod fleet;
pub mod herd;
pub mod load;
pub mod mails;
pub mod payload;
pub mod prometheus;
pub mod quota;
pub mod smtp;
pub mod spool;
pub mod unit;
pub mod usage;
pub mod wait;
pub mod watch;
