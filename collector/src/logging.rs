//! Logs of the collector: to standard error, where the service manager takes
//! them; `RUST_LOG` says how much.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging. Colours only where somebody looks at a terminal.
pub(crate) fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // Otherwise a log that cannot be written to, such as one on a full
        // disk, is complained about on standard error, and where that is the
        // log itself the complaint panics.
        .log_internal_errors(false)
        .init();
}
