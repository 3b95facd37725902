//! End to end: one test binary, so that the harness is linked once.
//!
//! Every test names its own processes and looks at those alone: other tests
//! and the machine's own programs run at the same time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod actions;
mod backup;
mod crash;
mod events;
mod evidence;
mod high_load;
mod hostile;
mod hostile_proc;
mod ignore;
mod index_damage;
mod learn;
mod load_generator;
mod metrics;
mod outages;
mod policy_files;
mod preview;
mod refusals;
mod revisions;
mod road;
mod rollout;
mod rule_hits;
mod scan_command;
mod service;
mod together;
