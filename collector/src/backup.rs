//! Takes the store out of a collector and puts it back: `store export` and
//! `store restore`.
//!
//! ```text
//! serving:  produce -> admin socket -> place     not serving:  produce -> place
//! ```
//!
//! Promises: a native copy ends both journals at a record that was durable at
//! one moment; the ledger's moment is not later than that of the findings, so
//! no alert points behind the copy. The private key of the authority never
//! travels over the socket. An incomplete copy has no manifest and is refused.

use std::path::PathBuf;

use crate::findings::Findings;
use crate::ledger::Ledger;

mod jsonl;
mod native;
mod place;
mod restore;

pub(crate) use place::Place;
pub(crate) use restore::restore;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Findings, hosts, policies and decisions as JSON lines
    Jsonl,
    /// The journals themselves, for `store restore`
    Native,
}

impl Format {
    /// The word for it in the manifest.
    fn word(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Native => "native",
        }
    }
}

/// What is copied.
pub(crate) struct Source {
    pub(crate) data_dir: PathBuf,
    pub(crate) ledger: Ledger,
    pub(crate) findings: Findings,
}

/// Takes pieces of files: a name below the copy's directory, and what comes
/// next in that file. Files come one after the other.
pub(crate) type Sink<'a> = dyn FnMut(&str, &[u8]) -> anyhow::Result<()> + 'a;

/// Hands out everything of a store, file by file. Reads the disk for as long
/// as it takes: not for a thread that serves.
///
/// # Errors
/// When the disk cannot be read, or the sink fails.
pub(crate) fn produce(source: &Source, format: Format, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    match format {
        Format::Jsonl => jsonl::produce(source, sink),
        Format::Native => native::produce(source, sink),
    }
}
