//! The log: lines on standard error, chosen by `RUST_LOG` (default `info`).

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log. Call it once, first.
pub(crate) fn start() {
    let (chosen, error) = chosen(std::env::var("RUST_LOG").ok().as_deref());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // As in the collector: complaining about a log that cannot be written
        // goes to standard error too, and panics where that is the log itself.
        .log_internal_errors(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(chosen)
        .init();
    if let Some(error) = error {
        tracing::warn!(error, "RUST_LOG cannot be read: the log has level info.");
    }
}

/// What is logged. Targets and levels only: filters for spans, which nobody
/// needs here, would bring an automaton of a hundred kilobytes.
fn chosen(wanted: Option<&str>) -> (Targets, Option<String>) {
    let default = || Targets::new().with_default(LevelFilter::INFO);
    match wanted.map(str::trim).filter(|wanted| !wanted.is_empty()) {
        None => (default(), None),
        Some(wanted) => match wanted.parse() {
            Ok(targets) => (targets, None),
            Err(error) => (default(), Some(format!("{error}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_variable_chooses_and_one_that_says_nothing_leaves_info() {
        let would = |wanted, level: &Level| {
            let (chosen, error) = chosen(wanted);
            (
                chosen.would_enable("procwarden_agent::run", level),
                error.is_some(),
            )
        };
        for nothing in [None, Some(""), Some(" ")] {
            assert_eq!(would(nothing, &Level::INFO), (true, false));
            assert_eq!(would(nothing, &Level::DEBUG), (false, false));
        }
        assert_eq!(would(Some("debug"), &Level::DEBUG), (true, false));
        assert_eq!(
            would(Some("procwarden_agent=trace"), &Level::TRACE),
            (true, false)
        );
        assert_eq!(would(Some("h2=trace"), &Level::ERROR), (false, false));
        assert_eq!(would(Some("=info=loud"), &Level::INFO), (true, true));
    }
}
