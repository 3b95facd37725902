//! The limit of open files. A scan holds directories of many processes open at
//! once, and what hangs keeps its own: below some two hundred, reading /proc,
//! the spool and the stream take descriptors away from each other.
//!
//! Promises: a limit that is lower than usual is raised at the start, as far
//! as the hard one lets the agent; one that stays too low is said. Never
//! raises it further: scripts of `[actions]` inherit it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What most systems start every program with.
const USUAL: u64 = 1024;

/// With less, the agent does not see all there is.
const NEEDED: u64 = 256;

/// Raises the limit; what to tell the operator about it.
pub(super) fn raise() -> Option<String> {
    let before = getrlimit(Resource::Nofile);
    let raised = raised(before);
    if raised != before
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "The limit of open files was not raised.");
    }
    note(getrlimit(Resource::Nofile))
}

/// A limit of none is no limit.
fn raised(limit: Rlimit) -> Rlimit {
    let wanted = limit.maximum.map_or(USUAL, |hard| hard.min(USUAL));
    Rlimit {
        current: limit.current.map(|soft| soft.max(wanted)),
        ..limit
    }
}

fn note(limit: Rlimit) -> Option<String> {
    let files = limit.current.filter(|&files| files < NEEDED)?;
    Some(format!(
        "the agent may open {files} files at once and needs {NEEDED}: it does not see all there is, and \
         may not reach spool and collector; raise the hard limit, with LimitNOFILE= in the unit or `ulimit -Hn`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn limit(current: Option<u64>, maximum: Option<u64>) -> Rlimit {
        Rlimit { current, maximum }
    }

    #[test]
    fn the_limit_is_raised_to_the_usual_one_as_far_as_it_may_and_never_lowered() {
        for (soft, hard, raised_to) in [
            (Some(64), Some(524_288), Some(1024)),
            (Some(64), Some(512), Some(512)),
            (Some(64), None, Some(1024)),
            (Some(64), Some(64), Some(64)),
            (Some(4096), Some(524_288), Some(4096)),
            (None, None, None),
        ] {
            assert_eq!(raised(limit(soft, hard)), limit(raised_to, hard));
        }
    }

    #[test]
    fn a_limit_that_stays_too_low_is_said_with_what_to_do() {
        let said = note(limit(Some(100), Some(100))).unwrap();
        assert!(said.contains("may open 100 files") && said.contains("LimitNOFILE="));
        for files in [Some(256), Some(1024), None] {
            assert_eq!(note(limit(files, files)), None);
        }
        let before = getrlimit(Resource::Nofile);
        let _said = raise();
        assert!(getrlimit(Resource::Nofile).current >= before.current || before.current.is_none());
    }
}
