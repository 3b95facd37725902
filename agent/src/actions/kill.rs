//! Killing one process: the decision, and the deed.
//!
//! Promises: never process 1, a kernel thread, the agent or what it started;
//! never a process of root's whose executable the host's own file does not
//! name, and root's is one that can become root again; never a process with a
//! deleted executable, or one that cannot be told from it, for being over a
//! limit (as lfd); never another process that took over a PID. What is decided about is
//! read after the pidfd was opened, and the signal goes through that pidfd.

use procwarden_common::process::{ExeState, ProcessKey};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::procfs::{Failed, OwnView, ProcRoot, What, read_exe};

/// Parents that are looked at to find out whether the agent is among them.
const PARENTS_MAX: usize = 64;

/// Why a process is to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It, or its account, is over a limit.
    OverLimit,
    /// Its session has too many processes.
    ForkBomb,
    /// It is a login that hangs in sshd.
    HungSshd,
}

/// What is known of a process at the moment of the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KillFacts {
    pub(crate) pid: u32,
    pub(crate) start_time: u64,
    pub(crate) kernel_thread: bool,
    /// One of its uids is root's: a daemon of root's that works for an account
    /// takes that one's effective uid for a while. Nothing when they could not
    /// be read.
    pub(crate) is_root_s: Option<bool>,
    /// Its executable's path and state; nothing when it could not be read.
    pub(crate) exe: Option<(Vec<u8>, ExeState)>,
    /// It is the agent, or the agent is among its parents.
    pub(crate) of_agent: bool,
}

/// May it be killed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Decision {
    Kill,
    Refuse(&'static str),
}

/// Decides about a process that was seen under the start time `seen`.
pub(crate) fn decide(
    facts: &KillFacts,
    seen_start_time: u64,
    reason: Reason,
    kill_root: &[Vec<u8>],
) -> Decision {
    if facts.pid <= 1 {
        return Decision::Refuse("process 1 is never killed");
    }
    if facts.start_time != seen_start_time {
        return Decision::Refuse("another process has its PID now");
    }
    if facts.kernel_thread {
        return Decision::Refuse("it is a kernel thread");
    }
    if facts.of_agent {
        return Decision::Refuse("it belongs to the agent");
    }
    if reason == Reason::OverLimit
        && let Some(why) = evidence(facts)
    {
        return Decision::Refuse(why);
    }
    match facts.is_root_s {
        None => Decision::Refuse("its account could not be read"),
        Some(true) if !is_named(facts, reason, kill_root) => {
            Decision::Refuse("it is root's, and actions.kill_root does not name its executable")
        }
        Some(_) => Decision::Kill,
    }
}

/// Why a process is evidence that being over a limit is no reason to destroy:
/// it runs, or may run, something else than the file that its path names.
fn evidence(facts: &KillFacts) -> Option<&'static str> {
    match facts.exe {
        Some((_, ExeState::Live)) => None,
        Some(_) => Some("its executable is deleted: it is evidence"),
        None => Some("its executable could not be read: it may be deleted, and evidence"),
    }
}

/// The option `kill_hung_sshd` itself names sshd. A path counts only where it
/// names the file that runs.
fn is_named(facts: &KillFacts, reason: Reason, kill_root: &[Vec<u8>]) -> bool {
    let Some((path, ExeState::Live)) = &facts.exe else {
        return false;
    };
    let is_sshd = [b"/sshd".as_slice(), b"/sshd-session"]
        .iter()
        .any(|end| path.ends_with(end));
    kill_root.contains(path) || (reason == Reason::HungSshd && is_sshd)
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Killed,
    /// It had ended already.
    Gone,
    Refused(&'static str),
    Failed(Errno),
}

/// Kills a process, if that is still the one that was seen.
pub(crate) fn kill(
    root: &ProcRoot,
    key: ProcessKey,
    reason: Reason,
    kill_root: &[Vec<u8>],
) -> Outcome {
    let Some(pid) = i32::try_from(key.pid).ok().and_then(Pid::from_raw) else {
        return Outcome::Gone;
    };
    // From here on the number cannot come to mean another process.
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Outcome::Gone,
        Err(errno) => return Outcome::Failed(errno),
    };
    let facts = match facts(root, key.pid) {
        Ok(facts) => facts,
        Err(Failed::Vanished) => return Outcome::Gone,
        Err(Failed::Refused) => return Outcome::Refused("it could not be looked at"),
    };
    match decide(&facts, key.start_time, reason, kill_root) {
        Decision::Refuse(why) => Outcome::Refused(why),
        Decision::Kill => match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => Outcome::Killed,
            Err(Errno::SRCH) => Outcome::Gone,
            Err(errno) => Outcome::Failed(errno),
        },
    }
}

/// What the decision needs, as it is now.
pub(crate) fn facts(root: &ProcRoot, pid: u32) -> Result<KillFacts, Failed> {
    let dir = root.process(pid)?;
    let stat = dir.stat()?;
    let own_pid = std::process::id();
    let mut buffer = Vec::new();
    Ok(KillFacts {
        pid,
        start_time: stat.start_time,
        kernel_thread: stat.is_kernel_thread(),
        is_root_s: (dir.status(&mut buffer).ok()).map(|status| status.is_root_s),
        exe: exe(root, pid, stat.start_time),
        of_agent: pid == own_pid || has_parent(root, stat.ppid, own_pid),
    })
}

fn exe(root: &ProcRoot, pid: u32, start_time: u64) -> Option<(Vec<u8>, ExeState)> {
    let key = ProcessKey {
        boot_id: root.boot_id(),
        pid,
        start_time,
    };
    let dir = root.reopen(key).ok()?;
    let read = move || read_exe(&dir, &OwnView::look());
    let exe = root.ask(key, What::File, read)?.ok()?;
    Some((exe.path().to_vec(), exe.state))
}

fn has_parent(root: &ProcRoot, first: u32, wanted: u32) -> bool {
    let mut pid = first;
    for _ in 0..PARENTS_MAX {
        if pid == wanted {
            return true;
        }
        let parent = root.process(pid).and_then(|dir| dir.stat());
        match parent {
            Ok(stat) if pid > 1 => pid = stat.ppid,
            _ => return false,
        }
    }
    // A chain this long may well end at the agent.
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::procfs::live::Running;

    fn ordinary() -> KillFacts {
        KillFacts {
            pid: 42,
            start_time: 7,
            kernel_thread: false,
            is_root_s: Some(false),
            exe: Some((b"/home/a/x".to_vec(), ExeState::Live)),
            of_agent: false,
        }
    }

    fn word(change: impl FnOnce(&mut KillFacts), reason: Reason) -> &'static str {
        let mut facts = ordinary();
        change(&mut facts);
        let named = [b"/opt/batch".to_vec()];
        match decide(&facts, 7, reason, &named) {
            Decision::Kill => "kill",
            Decision::Refuse(why) => why,
        }
    }

    #[test]
    fn an_account_s_process_is_killed_and_root_s_only_when_named() {
        use Reason::{ForkBomb, HungSshd, OverLimit};
        let root_s = |path: &'static [u8], state| {
            move |facts: &mut KillFacts| {
                facts.is_root_s = Some(true);
                facts.exe = Some((path.to_vec(), state));
            }
        };
        assert_eq!(word(|_| {}, OverLimit), "kill");
        assert_eq!(
            word(root_s(b"/opt/batch", ExeState::Live), OverLimit),
            "kill"
        );
        assert_eq!(
            word(root_s(b"/usr/sbin/sshd", ExeState::Live), HungSshd),
            "kill"
        );
        let not_named = "it is root's, and actions.kill_root does not name its executable";
        assert_eq!(
            word(root_s(b"/opt/other", ExeState::Live), ForkBomb),
            not_named
        );
        assert_eq!(
            word(root_s(b"/usr/sbin/sshd", ExeState::Live), ForkBomb),
            not_named
        );
        assert_eq!(
            word(root_s(b"/opt/batch", ExeState::Deleted), ForkBomb),
            not_named
        );
        assert_eq!(
            word(
                |facts| (facts.is_root_s, facts.exe) = (Some(true), None),
                HungSshd
            ),
            not_named
        );
    }

    #[test]
    fn a_deleted_executable_is_evidence_for_the_limits_and_no_excuse_for_a_bomb() {
        let deleted = |facts: &mut KillFacts| {
            facts.exe = Some((b"/tmp/x".to_vec(), ExeState::Deleted));
        };
        assert!(word(deleted, Reason::OverLimit).contains("deleted"));
        assert_eq!(word(deleted, Reason::ForkBomb), "kill");
        let unread = |facts: &mut KillFacts| facts.exe = None;
        assert!(word(unread, Reason::OverLimit).contains("could not be read"));
        assert_eq!(word(unread, Reason::ForkBomb), "kill");
    }

    fn any_facts() -> impl Strategy<Value = KillFacts> {
        let state = prop_oneof![
            Just(ExeState::Live),
            Just(ExeState::Deleted),
            Just(ExeState::Replaced),
            Just(ExeState::Memfd),
            Just(ExeState::Unknown),
        ];
        let path = prop_oneof![
            Just(b"/opt/batch".to_vec()),
            Just(b"/usr/sbin/sshd".to_vec())
        ];
        let numbers = (0u32..4, 0u64..3, proptest::option::of(any::<bool>()));
        let flags = (any::<bool>(), any::<bool>());
        (numbers, flags, proptest::option::of((path, state))).prop_map(|(numbers, flags, exe)| {
            KillFacts {
                pid: numbers.0,
                start_time: numbers.1,
                kernel_thread: flags.0,
                is_root_s: numbers.2,
                exe,
                of_agent: flags.1,
            }
        })
    }

    proptest! {
        #[test]
        fn whatever_is_known_the_promises_hold(
            facts in any_facts(),
            named in any::<bool>(),
            reason in proptest::sample::select(vec![Reason::OverLimit, Reason::ForkBomb, Reason::HungSshd]),
        ) {
            let kill_root = if named { vec![b"/opt/batch".to_vec()] } else { Vec::new() };
            if decide(&facts, 1, reason, &kill_root) == Decision::Kill {
                prop_assert!(facts.pid > 1 && facts.start_time == 1);
                prop_assert!(!facts.kernel_thread && !facts.of_agent);
                prop_assert!(facts.is_root_s.is_some());
                let live = facts.exe.as_ref().filter(|(_, state)| *state == ExeState::Live);
                if facts.is_root_s == Some(true) {
                    let (path, _) = live.unwrap();
                    prop_assert!(kill_root.contains(path) || reason == Reason::HungSshd);
                }
                if reason == Reason::OverLimit {
                    prop_assert!(live.is_some());
                }
            }
        }
    }

    #[test]
    fn a_living_process_is_told_from_one_that_had_its_pid() {
        let mut command = std::process::Command::new("/bin/sleep");
        let child = Running::start(command.arg("600"));
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let facts = facts(&root, child.pid()).unwrap();
        assert!(facts.of_agent, "it was started by this program");
        let key = |start_time| ProcessKey {
            boot_id: root.boot_id(),
            pid: child.pid(),
            start_time,
        };
        let outcome = kill(&root, key(facts.start_time + 1), Reason::OverLimit, &[]);
        assert_eq!(outcome, Outcome::Refused("another process has its PID now"));
        let outcome = kill(&root, key(facts.start_time), Reason::OverLimit, &[]);
        assert_eq!(outcome, Outcome::Refused("it belongs to the agent"));
    }
}
