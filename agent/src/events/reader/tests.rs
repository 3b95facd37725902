//! The reader at the kernel of this machine, and at one that fails on purpose.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::events::retry::RETRY_PAUSE;
use crate::run::scanning::{Wakes, waker};

/// Waits until events are on or off, or until there is a reason for none.
fn settled(lookout: &Lookout, board: &Board, is_on: bool) -> bool {
    for _ in 0..600 {
        if lookout.counts().is_on == is_on {
            return true;
        }
        if !board.snapshot().notes().is_empty() {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the reader of events does not follow its switch");
}

#[test]
fn events_follow_the_switch_and_a_scan_finds_what_they_missed() {
    let switch = Arc::new(Switch::new(Mode::Off).unwrap());
    let lookout = Arc::new(Lookout::new(10, Instant::now()));
    let board = Arc::new(Board::default());
    let (waker, wakes) = waker();
    start(&switch, &lookout, &waker, &board).unwrap();
    assert!(lookout.scan_begins() && !lookout.misses_something());
    for _ in 0..2 {
        switch.turn(Mode::Auto);
        if !settled(&lookout, &board, true) {
            // No events here: what the connector's own test is about.
            return;
        }
        assert_eq!(wakes.recv_timeout(Duration::from_secs(60)), Ok(Wake::Look));
        assert!(lookout.scan_begins());
        switch.turn(Mode::Off);
        assert!(settled(&lookout, &board, false));
    }
}

/// What the kernel does when it is asked for events.
enum Answer {
    Refuses(NoEvents),
    /// The same, and somebody turns the switch meanwhile.
    RefusesWhileTurned(NoEvents),
    /// Gives these, one per wake-up, and is quiet for as long as is said.
    Sends(Vec<Happens>),
}

#[derive(Clone, Copy)]
enum Happens {
    Event(u32),
    /// ENOBUFS.
    Overflow,
    Quiet(Duration),
    Breaks(Errno),
    /// poll(2) fails.
    CannotWait(Errno),
    /// A scan begins, and finds whatever was missed until then.
    Scan,
    SwitchedOff,
}

/// A kernel that does what it is told, and a clock that moves while one waits.
struct Faulty {
    now: Rc<Cell<Instant>>,
    begin: Instant,
    answers: RefCell<VecDeque<Answer>>,
    /// When the kernel was asked, in seconds.
    asked: RefCell<Vec<u64>>,
    is_turned: Cell<bool>,
    /// How often nobody can be waited for.
    cannot_rest: Cell<u32>,
    is_over: Cell<bool>,
    board: Arc<Board>,
    lookout: Arc<Lookout>,
    seen: Rc<RefCell<Vec<String>>>,
}

struct FaultyStream {
    lookout: Arc<Lookout>,
    now: Rc<Cell<Instant>>,
    happens: RefCell<VecDeque<Happens>>,
    is_read: Cell<bool>,
    board: Arc<Board>,
    seen: Rc<RefCell<Vec<String>>>,
}

/// Remembers the notes of the status, each once in a row.
fn see(board: &Board, seen: &RefCell<Vec<String>>) {
    let words = board.snapshot().notes().join("; ");
    let mut seen = seen.borrow_mut();
    if seen.last() != Some(&words) {
        seen.push(words);
    }
}

impl Source for Faulty {
    type Stream = FaultyStream;

    fn listen(&self, _request: u32) -> Result<FaultyStream, NoEvents> {
        let at = self.now.get().duration_since(self.begin).as_secs();
        self.asked.borrow_mut().push(at);
        match self.answers.borrow_mut().pop_front() {
            Some(Answer::Refuses(reason)) => Err(reason),
            Some(Answer::RefusesWhileTurned(reason)) => {
                self.is_turned.set(true);
                Err(reason)
            }
            Some(Answer::Sends(happens)) => Ok(FaultyStream {
                now: Rc::clone(&self.now),
                happens: RefCell::new(happens.into()),
                is_read: Cell::new(false),
                board: Arc::clone(&self.board),
                lookout: Arc::clone(&self.lookout),
                seen: Rc::clone(&self.seen),
            }),
            None => panic!("asked too often: {:?}", self.asked.borrow()),
        }
    }

    /// Ends the test when there is nothing more to answer. Wakes up once too
    /// early, as a signal makes it.
    fn rest(&self, switch: &Switch, pause: Option<Duration>) -> Result<bool, Errno> {
        see(&self.board, &self.seen);
        if pause == Some(Duration::ZERO) {
            return Ok(self.is_turned.take());
        }
        if self.answers.borrow().is_empty() {
            self.is_over.set(true);
            return Ok(false);
        }
        if let Some(left) = self.cannot_rest.get().checked_sub(1) {
            self.cannot_rest.set(left);
            return Err(Errno::NOMEM);
        }
        match pause {
            Some(pause) => {
                self.sleep(pause.min(Duration::from_secs(100)));
                Ok(false)
            }
            None => {
                switch.turn(Mode::Auto);
                Ok(true)
            }
        }
    }

    fn sleep(&self, pause: Duration) {
        self.now.set(self.now.get() + pause);
    }

    fn now(&self) -> Instant {
        self.now.get()
    }
}

impl Stream for FaultyStream {
    fn wait(&self, switch: &Switch, timeout: Duration) -> Result<bool, Errno> {
        see(&self.board, &self.seen);
        self.is_read.set(false);
        let mut happens = self.happens.borrow_mut();
        match happens.front_mut() {
            Some(Happens::Quiet(left)) => {
                let waited = timeout.min(*left);
                *left -= waited;
                if left.is_zero() {
                    happens.pop_front();
                }
                self.now.set(self.now.get() + waited);
                Ok(false)
            }
            Some(Happens::SwitchedOff) => {
                happens.pop_front();
                switch.turn(Mode::Off);
                Ok(false)
            }
            Some(Happens::Scan) => {
                happens.pop_front();
                let _missed = self.lookout.scan_begins();
                Ok(false)
            }
            Some(Happens::CannotWait(errno)) => Err(*errno),
            Some(_) => Ok(true),
            None => panic!("nothing was to be waited for any more"),
        }
    }

    fn read(&self) -> Result<Read, Errno> {
        if self.is_read.replace(true) {
            return Ok(Read::Nothing);
        }
        match self.happens.borrow_mut().pop_front() {
            Some(Happens::Event(pid)) => Ok(Read::Event(Event::Changed { pid })),
            Some(Happens::Overflow) => Ok(Read::Overflow),
            Some(Happens::Breaks(errno)) => Err(errno),
            _ => panic!("nothing was to be read"),
        }
    }

    fn want_names(&self, _request: u32, is_wanted: bool) {
        self.seen.borrow_mut().push(format!("names: {is_wanted}"));
    }

    fn ignore(&self, _request: u32) {}
}

/// What came of it.
struct Course {
    /// When the kernel was asked, in seconds.
    asked: Vec<u64>,
    /// The notes of the status, one after the other.
    seen: Vec<String>,
    lookout: Arc<Lookout>,
    wakes: Wakes,
}

fn course(answers: Vec<Answer>) -> Course {
    course_without_rest(answers, 0)
}

/// The same, where the first so many waits for the switch fail.
fn course_without_rest(answers: Vec<Answer>, cannot_rest: u32) -> Course {
    let begin = Instant::now();
    let (board, seen) = (Arc::new(Board::default()), Rc::default());
    let lookout = Arc::new(Lookout::new(10, begin));
    let _first = lookout.scan_begins();
    let (waker, wakes) = waker();
    let reader = Reader {
        switch: Arc::new(Switch::new(Mode::Auto).unwrap()),
        lookout: Arc::clone(&lookout),
        waker,
        board: Arc::clone(&board),
    };
    let source = Faulty {
        now: Rc::new(Cell::new(begin)),
        begin,
        answers: RefCell::new(answers.into()),
        asked: RefCell::default(),
        is_turned: Cell::new(false),
        cannot_rest: Cell::new(cannot_rest),
        is_over: Cell::new(false),
        board,
        lookout: Arc::clone(&lookout),
        seen: Rc::clone(&seen),
    };
    let mut retry = Retry::default();
    while !source.is_over.get() {
        reader.step(&source, &mut retry);
    }
    let (asked, seen) = (source.asked.take(), seen.take());
    Course {
        asked,
        seen,
        lookout,
        wakes,
    }
}

/// Notes as the status has them.
fn notes(of: &[&NoEvents]) -> Vec<String> {
    of.iter().map(|reason| no_events(reason)).collect()
}

#[test]
fn what_is_refused_first_and_granted_later_is_asked_for_at_intervals_and_said_once() {
    let refuses = || Answer::Refuses(NoEvents::Io(Errno::NOMEM));
    let sends = Answer::Sends(vec![Happens::Event(7), Happens::Breaks(Errno::IO)]);
    let course = course(vec![refuses(), refuses(), refuses(), sends]);
    let pause = RETRY_PAUSE.as_secs();
    assert_eq!(course.asked, [0, pause, 2 * pause, 3 * pause]);
    let [refused, broken] = [NoEvents::Io(Errno::NOMEM), NoEvents::Io(Errno::IO)];
    let [refused, broken] = [no_events(&refused), no_events(&broken)];
    assert_eq!(course.seen, [refused, String::new(), broken]);
    // What started before events came is for a scan, and the event for a look.
    assert!(course.lookout.misses_something());
    assert_eq!(course.wakes.recv_timeout(Duration::ZERO), Ok(Wake::Look));
    assert_eq!(course.lookout.counts().seen, 1);
}

#[test]
fn a_stream_that_breaks_is_opened_again_after_the_pause_and_a_scan_finds_what_it_missed() {
    let breaks = |errno| Answer::Sends(vec![Happens::Breaks(errno)]);
    let course = course(vec![
        breaks(Errno::IO),
        breaks(Errno::IO),
        breaks(Errno::NOMEM),
    ]);
    let pause = RETRY_PAUSE.as_secs();
    assert_eq!(course.asked, [0, pause, 2 * pause]);
    let [io, memory] = [NoEvents::Io(Errno::IO), NoEvents::Io(Errno::NOMEM)];
    let quiet = String::new();
    let [io, memory] = [no_events(&io), no_events(&memory)];
    let seen = [quiet.clone(), io.clone(), quiet.clone(), io, quiet, memory];
    assert_eq!(course.seen, seen);
    assert!(!course.lookout.counts().is_on);
    assert!(course.lookout.scan_begins() && !course.lookout.misses_something());
}

#[test]
fn a_wait_that_fails_is_a_loss_that_passes_and_a_scan_finds_what_it_missed() {
    for errno in [Errno::NOMEM, Errno::INVAL] {
        let fails = || Answer::Sends(vec![Happens::Scan, Happens::CannotWait(errno)]);
        let course = course(vec![fails(), fails()]);
        assert_eq!(course.asked, [0, RETRY_PAUSE.as_secs()]);
        let note = no_events(&NoEvents::Io(errno));
        assert_eq!(course.seen, ["", &note, "", &note]);
        // The scan came before the loss.
        assert!(course.lookout.scan_begins() && !course.lookout.counts().is_on);
        assert_eq!(course.wakes.recv_timeout(Duration::ZERO), Ok(Wake::Look));
    }
}

#[test]
fn who_cannot_wait_for_the_switch_asks_again_all_the_same() {
    let refuses = || Answer::Refuses(NoEvents::Io(Errno::NOMEM));
    let sends = Answer::Sends(vec![Happens::Event(7), Happens::SwitchedOff]);
    let course = course_without_rest(vec![refuses(), refuses(), sends], 50);
    let pause = RETRY_PAUSE.as_secs();
    assert_eq!(course.asked, [0, pause, 2 * pause]);
    assert_eq!(course.lookout.counts().seen, 1);
}

#[test]
fn without_the_capability_the_agent_asks_again_for_ever_and_says_it_once() {
    let refuses = |_| Answer::Refuses(NoEvents::NotPermitted);
    let course = course((0..20).map(refuses).collect());
    let expected: Vec<u64> = (0..20).map(|n| n * RETRY_PAUSE.as_secs()).collect();
    assert_eq!(course.asked, expected);
    assert_eq!(course.seen, notes(&[&NoEvents::NotPermitted]));
    // No scan is asked for in vain: those at intervals go on by themselves.
    assert!(!course.lookout.misses_something());
    assert!(course.wakes.recv_timeout(Duration::ZERO).is_err());
}

#[test]
fn overflows_are_one_episode_and_the_stream_stays() {
    use Happens::{Event, Overflow, Quiet};
    let almost = Quiet(Duration::from_secs(59));
    let happens = vec![Overflow, almost, Overflow, Event(7), Overflow];
    let ends = [Quiet(Duration::from_secs(61)), Happens::Breaks(Errno::IO)];
    let course = course(vec![Answer::Sends([happens, ends.to_vec()].concat())]);
    assert_eq!(course.asked, [0]);
    let broken = no_events(&NoEvents::Io(Errno::IO));
    let seen = ["", "names: false", LOSES_EVENTS, "names: true", "", &broken];
    assert_eq!(course.seen, seen);
    let counts = course.lookout.counts();
    assert_eq!((counts.overflows, counts.seen), (3, 1));
    assert!(course.lookout.misses_something());
}

#[test]
fn what_runs_over_while_it_is_asked_for_is_refused_like_anything_else() {
    let refuses = |errno| Answer::Refuses(NoEvents::from(errno));
    let course = course(vec![refuses(Errno::NOBUFS), refuses(Errno::PERM)]);
    assert_eq!(course.asked, [0, RETRY_PAUSE.as_secs()]);
    let expected = [&NoEvents::Io(Errno::NOBUFS), &NoEvents::NotPermitted];
    assert_eq!(course.seen, notes(&expected));
}

#[test]
fn a_turn_of_the_switch_is_followed_at_once_and_takes_the_note_away() {
    let first = Answer::Sends(vec![Happens::Overflow, Happens::SwitchedOff]);
    let course = course(vec![first, Answer::Refuses(NoEvents::NotPermitted)]);
    assert_eq!(course.asked, [0, 0]);
    let refused = no_events(&NoEvents::NotPermitted);
    let seen = ["", "names: false", LOSES_EVENTS, "", &refused];
    assert_eq!(course.seen, seen);
}

#[test]
fn a_turn_while_the_kernel_is_asked_is_not_missed() {
    let first = Answer::RefusesWhileTurned(NoEvents::Io(Errno::NOMEM));
    let course = course(vec![first, Answer::Refuses(NoEvents::NotPermitted)]);
    assert_eq!(course.asked, [0, 0]);
}
