//! Names of accounts, from whatever the host's name service knows.
//!
//! A look-up can hang for minutes when LDAP or SSSD is away, so it runs on a
//! thread of its own and is waited for only briefly. Promises: an answer
//! always comes at once or within the limit; an unknown account is its
//! number; what is unknown is not asked for again at every scan.
//! Never decides who is in scope (detect/scope.rs does).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use procwarden_common::limits::USER_BYTES_MAX;

/// How long one look-up may hold up a scan.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long a name is believed.
const NAME_KEPT: Duration = Duration::from_secs(600);
/// How long "there is no such account" is believed.
const UNKNOWN_KEPT: Duration = Duration::from_secs(60);
/// Accounts that are remembered; far more than a server has.
const ACCOUNTS_MAX: usize = 100_000;
/// Look-ups that wait for a slow name service.
const QUESTIONS_MAX: usize = 1024;

/// Where names come from: the system, or a table in a test.
pub(crate) trait NameSource: Send + 'static {
    /// The name of an account; nothing when it has none. May block.
    fn name_of(&mut self, uid: u32) -> Option<Vec<u8>>;
}

/// The host's name service (getpwuid_r).
pub(crate) struct SystemNames;

impl NameSource for SystemNames {
    fn name_of(&mut self, uid: u32) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt;
        uzers::get_user_by_uid(uid).map(|user| user.name().as_bytes().to_vec())
    }
}

struct Known {
    name: Arc<[u8]>,
    until: Instant,
}

/// The cache of names, and the way to the thread that fills it.
pub(crate) struct Users {
    known: HashMap<u32, Known>,
    asked: HashSet<u32>,
    questions: SyncSender<u32>,
    answers: Receiver<(u32, Option<Vec<u8>>)>,
    wait: Duration,
    slow: bool,
}

impl Users {
    /// Starts the thread. It ends when this value is dropped.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(source: impl NameSource) -> std::io::Result<Self> {
        Self::start_with(source, ANSWER_WAIT)
    }

    fn start_with(mut source: impl NameSource, wait: Duration) -> std::io::Result<Self> {
        let (questions, asked_for) = sync_channel::<u32>(QUESTIONS_MAX);
        let (answer, answers) = sync_channel(QUESTIONS_MAX);
        std::thread::Builder::new()
            .name("account-names".to_owned())
            .spawn(move || {
                for uid in asked_for {
                    if answer.send((uid, source.name_of(uid))).is_err() {
                        break;
                    }
                }
            })?;
        let (known, asked) = (HashMap::new(), HashSet::new());
        Ok(Self {
            known,
            asked,
            questions,
            answers,
            wait,
            slow: false,
        })
    }

    /// The name of an account, or its number.
    pub(crate) fn name(&mut self, uid: u32, now: Instant) -> Arc<[u8]> {
        self.hear(now);
        if let Some(known) = self.known.get(&uid).filter(|known| known.until > now) {
            return Arc::clone(&known.name);
        }
        self.ask(uid);
        // A name service that is late once is not waited for again until it
        // has answered: one hanging look-up must not cost a second per account.
        if !self.slow {
            self.wait_for(uid, now);
        }
        self.known
            .get(&uid)
            .map_or_else(|| number(uid), |known| Arc::clone(&known.name))
    }

    /// Whether the name service is late with an answer.
    pub(crate) const fn is_slow(&self) -> bool {
        self.slow
    }

    /// Takes the answers that came late.
    fn hear(&mut self, now: Instant) {
        while !self.asked.is_empty()
            && let Ok((uid, name)) = self.answers.try_recv()
        {
            self.learn(uid, name, now);
        }
    }

    fn ask(&mut self, uid: u32) {
        // A full queue means a hanging service; the next scan asks again.
        if !self.asked.contains(&uid) && self.questions.try_send(uid).is_ok() {
            self.asked.insert(uid);
        }
    }

    fn wait_for(&mut self, uid: u32, now: Instant) {
        let deadline = Instant::now() + self.wait;
        while self.asked.contains(&uid) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok((uid, name)) => self.learn(uid, name, now),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.slow = true;
                    return;
                }
            }
        }
    }

    fn learn(&mut self, uid: u32, name: Option<Vec<u8>>, now: Instant) {
        self.asked.remove(&uid);
        self.slow = self.slow && !self.asked.is_empty();
        if self.known.len() >= ACCOUNTS_MAX {
            self.known.clear();
        }
        let kept = if name.is_some() {
            NAME_KEPT
        } else {
            UNKNOWN_KEPT
        };
        let name = match name.filter(|name| !name.is_empty()) {
            Some(mut name) => {
                name.truncate(USER_BYTES_MAX);
                Arc::from(name)
            }
            None => number(uid),
        };
        self.known.insert(
            uid,
            Known {
                name,
                until: now + kept,
            },
        );
    }
}

fn number(uid: u32) -> Arc<[u8]> {
    Arc::from(uid.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Sender;

    use super::*;

    /// Answers from a table, after a word from the test for each slow uid.
    struct Table {
        go: Receiver<()>,
        calls: Sender<u32>,
    }

    const SLOW_UID: u32 = 7;

    impl NameSource for Table {
        fn name_of(&mut self, uid: u32) -> Option<Vec<u8>> {
            self.calls.send(uid).ok()?;
            if uid == SLOW_UID {
                self.go.recv().ok()?;
            }
            (uid < 1000).then(|| format!("account{uid}").into_bytes())
        }
    }

    fn users(wait: Duration) -> (Users, Sender<()>, Receiver<u32>) {
        let (go, gone) = std::sync::mpsc::channel();
        let (calls, called) = std::sync::mpsc::channel();
        (
            Users::start_with(Table { go: gone, calls }, wait).unwrap(),
            go,
            called,
        )
    }

    #[test]
    fn names_are_asked_for_once_and_unknown_accounts_are_numbers() {
        let (mut users, _go, called) = users(Duration::from_secs(60));
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(&*users.name(3, now), b"account3");
            assert_eq!(&*users.name(54321, now), b"54321");
        }
        assert_eq!(called.try_iter().collect::<Vec<_>>(), [3, 54321]);
        assert_eq!(&*users.name(54321, now + UNKNOWN_KEPT), b"54321");
        assert_eq!(called.try_iter().collect::<Vec<_>>(), [54321]);
    }

    #[test]
    fn a_hanging_name_service_holds_nobody_up_and_is_heard_later() {
        let (mut users, go, called) = users(Duration::ZERO);
        let now = Instant::now();
        assert_eq!(&*users.name(SLOW_UID, now), b"7");
        assert!(users.is_slow());
        assert_eq!(&*users.name(3, now), b"3");
        go.send(()).unwrap();
        // The thread takes the second question after it has sent the first answer.
        assert_eq!((called.recv(), called.recv()), (Ok(SLOW_UID), Ok(3)));
        while users.name(3, now)[..] != *b"account3" {
            std::thread::yield_now();
        }
        assert!(!users.is_slow());
        assert_eq!(&*users.name(SLOW_UID, now), b"account7");
    }
}
