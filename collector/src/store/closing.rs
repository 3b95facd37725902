//! Closes a database where nobody has to wait for it.
//!
//! sled flushes while it is dropped, and waits forever for a write that failed
//! halfway. So it is dropped by a thread of its own: whoever closes one waits
//! as long as it likes and goes on without it.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Drops the database of a directory, and waits at most `patience` for it.
pub(super) fn close(db: impl Send + 'static, dir: &Path, patience: Duration) {
    // Without a thread it is leaked: dropped here it might never come back.
    let db = ManuallyDrop::new(db);
    let (done, closed) = mpsc::channel();
    let closing = move || {
        drop(ManuallyDrop::into_inner(db));
        if done.send(()).is_err() {
            tracing::debug!("An index that nobody waited for is closed.");
        }
    };
    let spawned = thread::Builder::new()
        .name("index closer".into())
        .spawn(closing);
    if let Err(error) = spawned {
        tracing::warn!(index = %dir.display(), %error, "The index could not be closed.");
    } else if !patience.is_zero() && closed.recv_timeout(patience).is_err() {
        tracing::warn!(index = %dir.display(), "The index could not be closed cleanly.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OnDrop<F: FnMut()>(F);

    impl<F: FnMut()> Drop for OnDrop<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }

    #[test]
    fn whoever_closes_sees_it_closed() {
        let (dropped, seen) = mpsc::channel();
        let db = OnDrop(move || dropped.send(()).unwrap());
        close(db, Path::new("index"), Duration::from_secs(600));
        seen.try_recv().unwrap();
    }

    #[test]
    fn one_that_never_closes_holds_nobody_up() {
        let (release, held) = mpsc::channel::<()>();
        let db = OnDrop(move || assert!(held.recv().is_err()));
        close(db, Path::new("index"), Duration::ZERO);
        drop(release);
    }

    #[test]
    fn a_panic_while_it_is_dropped_stays_there() {
        let db = OnDrop(|| panic!("damaged"));
        close(db, Path::new("index"), Duration::from_secs(600));
    }
}
