//! How far a long piece of work is: a bar on a terminal, lines in a log.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Work that is done sooner says nothing.
const SILENT_TIME: Duration = Duration::from_secs(2);
const BAR_PAUSE: Duration = Duration::from_millis(100);
const LINE_PAUSE: Duration = Duration::from_secs(10);
const BAR_CELLS: u64 = 30;

/// Tells how far a piece of work is, to whoever watches.
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    next_word: Instant,
    is_terminal: bool,
    is_drawn: bool,
}

impl Progress {
    /// Work of so many bytes, beginning now.
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self {
            what,
            total,
            done: 0,
            next_word: Instant::now() + SILENT_TIME,
            is_terminal: std::io::stderr().is_terminal(),
            is_drawn: false,
        }
    }

    /// So many bytes more are done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        let now = Instant::now();
        if now < self.next_word {
            return;
        }
        if self.is_terminal {
            self.next_word = now + BAR_PAUSE;
            self.is_drawn = true;
            self.draw(&format!("\r{}", bar(self.what, self.percent())));
        } else {
            self.next_word = now + LINE_PAUSE;
            tracing::info!(done_percent = self.percent(), "{}.", self.what);
        }
    }

    pub(super) fn percent(&self) -> u64 {
        (self.done.saturating_mul(100) / self.total.max(1)).min(100)
    }

    fn draw(&self, text: &str) {
        let mut out = std::io::stderr().lock();
        // Nobody may be watching any more.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_drawn {
            self.draw(&format!("\r{}\n", bar(self.what, self.percent())));
        }
    }
}

fn bar(what: &str, percent: u64) -> String {
    let full = usize::try_from(BAR_CELLS * percent / 100).unwrap_or(0);
    let empty = usize::try_from(BAR_CELLS).unwrap_or(0).saturating_sub(full);
    format!(
        "{what} [{}{}] {percent:3} %",
        "#".repeat(full),
        " ".repeat(empty)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_when_everything_is_done() {
        assert_eq!(bar("Work", 0), format!("Work [{}]   0 %", " ".repeat(30)));
        assert_eq!(bar("Work", 100), format!("Work [{}] 100 %", "#".repeat(30)));
        let mut progress = Progress::new("Work", 200);
        progress.advance(50);
        assert_eq!(progress.percent(), 25);
        progress.advance(900);
        assert_eq!(
            (progress.percent(), Progress::new("None", 0).percent()),
            (100, 0)
        );
    }
}
