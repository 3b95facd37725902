//! The thread that reads events, while they are switched on.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::connector::{Connector, NoEvents, Read};
use super::message::Event;
use super::retry::{Retry, Step};
use super::{Lookout, Mode, Switch};
use crate::health::{Board, Part};
use crate::run::scanning::{Wake, Waker};
use crate::scan::thread_cpu_micros;

/// After the first event that waits, the agent sleeps for this long and reads
/// all that has come by then: one wake-up for a whole burst.
const GATHER: Duration = Duration::from_millis(20);

/// A program needs a moment to settle after execve(2): only then is its
/// command line complete, and what is about to end at once has ended.
pub(super) const SETTLE: Duration = Duration::from_millis(40);

/// Events taken over in one go, so that nobody waits for the lock for long.
const CHUNK: usize = 512;

/// Longest pause of the reader while it is in debt. What does not fit into
/// the socket meanwhile is lost and counted by the kernel.
const DEBT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the reader waits for events before it looks around.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// Where the kernel does not let the reader wait, it looks at its switch this
/// often.
const BLIND_PAUSE: Duration = Duration::from_secs(5);

/// The note while the kernel throws events away.
const LOSES_EVENTS: &str = "the kernel throws events away because there are more than the agent may \
    read: what lives shorter than a few seconds may not be seen until it is quiet for a minute";

/// Starts the thread. Where there are no events it says why, and tries again
/// from time to time, or when the switch is turned.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    switch: &Arc<Switch>,
    lookout: &Arc<Lookout>,
    waker: &Waker,
    board: &Arc<Board>,
) -> std::io::Result<()> {
    let reader = Reader {
        switch: Arc::clone(switch),
        lookout: Arc::clone(lookout),
        waker: waker.clone(),
        board: Arc::clone(board),
    };
    // It ends with the process: nothing that it holds has to be put away.
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || reader.run(&Kernel))?;
    Ok(())
}

/// Where events come from, and the clock they are told by: the kernel, or what
/// a test makes fail.
trait Source {
    type Stream: Stream;

    fn listen(&self, request: u32) -> Result<Self::Stream, NoEvents>;

    /// Waits until the switch is turned, and no longer than is said; whether it
    /// was.
    fn rest(&self, switch: &Switch, pause: Option<Duration>) -> Result<bool, Errno>;

    /// Waits for nothing but time.
    fn sleep(&self, pause: Duration);

    fn now(&self) -> Instant;
}

/// Events that come, as [`Connector`] has them.
trait Stream {
    fn wait(&self, switch: &Switch, timeout: Duration) -> Result<bool, Errno>;
    fn read(&self) -> Result<Read, Errno>;
    fn want_names(&self, request: u32, is_wanted: bool);
    fn ignore(&self, request: u32);
}

/// The kernel of this machine.
struct Kernel;

impl Source for Kernel {
    type Stream = Connector;

    fn listen(&self, request: u32) -> Result<Connector, NoEvents> {
        Connector::listen(request)
    }

    fn rest(&self, switch: &Switch, pause: Option<Duration>) -> Result<bool, Errno> {
        switch.wait(pause)
    }

    fn sleep(&self, pause: Duration) {
        thread::sleep(pause);
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Stream for Connector {
    fn wait(&self, switch: &Switch, timeout: Duration) -> Result<bool, Errno> {
        Self::wait(self, Some(switch), timeout)
    }

    fn read(&self) -> Result<Read, Errno> {
        Self::read(self)
    }

    fn want_names(&self, request: u32, is_wanted: bool) {
        Self::want_names(self, request, is_wanted);
    }

    fn ignore(&self, request: u32) {
        Self::ignore(self, request);
    }
}

struct Reader {
    switch: Arc<Switch>,
    lookout: Arc<Lookout>,
    waker: Waker,
    board: Arc<Board>,
}

impl Reader {
    fn run(self, source: &impl Source) {
        let mut retry = Retry::default();
        loop {
            self.step(source, &mut retry);
        }
    }

    fn step(&self, source: &impl Source, retry: &mut Retry) {
        let pause = match retry.step(self.switch.look(), source.now()) {
            Step::Ask => {
                // Switched off, it goes on at once and says so.
                if let Err(reason) = self.listen(source) {
                    self.note(Some(no_events(&reason)));
                    retry.failed(source.now());
                }
                // Not to be missed: the switch may have been turned
                // while the kernel was asked.
                Some(Duration::ZERO)
            }
            Step::RestOff => {
                tracing::info!(
                    "Events are off in the configuration: the agent scans at intervals only."
                );
                self.note(None);
                None
            }
            Step::Rest(pause) => pause,
        };
        match source.rest(&self.switch, pause) {
            Ok(true) => retry.turned(),
            Ok(false) => {}
            // Memory is short for a while: the switch is looked at all the
            // same, and when it is time the kernel is asked again.
            Err(error) => {
                tracing::debug!(%error, "The reader of events cannot wait for its switch.");
                source.sleep(pause.unwrap_or(BLIND_PAUSE).min(BLIND_PAUSE));
            }
        }
    }

    fn note(&self, note: Option<String>) {
        self.board
            .set_notes(Part::Events, note.into_iter().collect());
    }

    /// Listens until events are switched off. What happens after a stream
    /// broke is for a scan, as is what started before the first event.
    fn listen(&self, source: &impl Source) -> Result<(), NoEvents> {
        let stream = source.listen(request_number())?;
        tracing::info!("The kernel sends events: new programs are looked at within a second.");
        self.note(None);
        self.show(true);
        self.leave_to_a_scan();
        let read = self.read_until_off(source, &stream);
        self.show(false);
        stream.ignore(request_number());
        if read.is_err() {
            self.leave_to_a_scan();
        }
        Ok(read?)
    }

    fn leave_to_a_scan(&self) {
        self.lookout.lock().misses_something = true;
        self.waker.wake(Wake::Look);
    }

    fn show(&self, is_on: bool) {
        self.lookout.lock().counts.is_on = is_on;
        let events = self.lookout.counts();
        self.board.update(|health| health.events = events);
    }

    fn read_until_off(&self, source: &impl Source, stream: &impl Stream) -> Result<(), Errno> {
        let mut loses_events = false;
        loop {
            self.follow_losses(stream, source.now(), &mut loses_events);
            let is_ready = stream.wait(&self.switch, IDLE_WAIT)?;
            if self.switch.look() == Mode::Off {
                return Ok(());
            }
            if !is_ready {
                continue;
            }
            thread::sleep(GATHER);
            let began_us = thread_cpu_micros();
            let read = self.read_all(source, stream);
            let used_us = thread_cpu_micros().saturating_sub(began_us);
            read?;
            self.waker.wake(Wake::Look);
            let pause = self.lookout.was_read(used_us, source.now());
            // Whoever turns the switch is not kept waiting.
            self.switch.wait(Some(pause.min(DEBT_PAUSE_MAX)))?;
        }
    }

    /// Says it when the kernel begins to throw events away, and when it ended.
    /// Meanwhile it does without new names: they are the cheapest way to crowd
    /// out everything else, and scans see them.
    fn follow_losses(&self, stream: &impl Stream, now: Instant, was_said: &mut bool) {
        let loses_events = self.lookout.loses_events(now);
        if loses_events != *was_said {
            self.note(loses_events.then(|| LOSES_EVENTS.to_owned()));
            stream.want_names(request_number(), !loses_events);
            *was_said = loses_events;
        }
    }

    /// Reads what waits, up to twice as much as fits into the socket.
    fn read_all(&self, source: &impl Source, stream: &impl Stream) -> Result<(), Errno> {
        let mut pids = Vec::with_capacity(CHUNK);
        for _ in 0..40 {
            if self.read_some(source, stream, &mut pids)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Reads a chunk; breaks when nothing more waits.
    fn read_some(
        &self,
        source: &impl Source,
        stream: &impl Stream,
        pids: &mut Vec<u32>,
    ) -> Result<ControlFlow<()>, Errno> {
        pids.clear();
        let mut overflows = 0;
        let mut flow = ControlFlow::Continue(());
        while pids.len() < CHUNK && flow.is_continue() {
            match stream.read()? {
                Read::Event(Event::Changed { pid }) => pids.push(pid),
                Read::Event(Event::Answer { .. }) => {}
                Read::Overflow => overflows += 1,
                Read::Nothing => flow = ControlFlow::Break(()),
            }
        }
        self.take_over(pids, overflows, source.now());
        Ok(flow)
    }

    fn take_over(&self, pids: &[u32], overflows: u64, now: Instant) {
        let due = now + SETTLE;
        let mut state = self.lookout.lock();
        state.counts.seen += pids.len() as u64;
        for &pid in pids {
            state.mark(pid, due);
        }
        for _ in 0..overflows {
            state.overflowed(now);
        }
    }
}

fn no_events(reason: &NoEvents) -> String {
    format!(
        "no events, so what lives shorter than the interval between scans is not seen: {reason}"
    )
}

/// Tells the kernel's answer to this agent from answers to others.
fn request_number() -> u32 {
    getrandom::u32().unwrap_or_else(|_| std::process::id())
}

#[cfg(test)]
mod tests;
