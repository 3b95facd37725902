//! The messages and services of `proto/procwarden/v1`, as generated.
//!
//! Promises: nothing but generated code. `procwarden-common`'s `wire` turns
//! these types into domain types and back; no other code should interpret
//! them. The services exist with the feature `services` only, so that the
//! pure crates stay free of tokio.

/// Package `procwarden.v1`.
#[allow(clippy::all, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/procwarden.v1.rs"));
}
