//! Waiting for something to become true, with a deadline generous enough for
//! a loaded two-core machine. No test asserts how fast something was.

use std::time::{Duration, Instant};

/// Longest wait for anything; a test that gets here has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until `look` finds something.
///
/// # Panics
/// When it found nothing in time; `what` and the last word say what was missing.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) if begin.elapsed() > PATIENCE => {
                panic!("waited {PATIENCE:?} for {what}: {missing}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Watches for a while that something stays true: the way to see that a mail
/// or a finding does not come.
///
/// # Panics
/// As soon as `look` finds fault.
#[track_caller]
pub fn stays(what: &str, during: Duration, mut look: impl FnMut() -> Result<(), String>) {
    let begin = Instant::now();
    while begin.elapsed() < during {
        if let Err(fault) = look() {
            panic!("{what}: {fault}");
        }
        std::thread::sleep(PAUSE);
    }
}
