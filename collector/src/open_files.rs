//! The limit of open files: every agent's stream is one, and the limit that a
//! login or a service starts with is often 1024.
//!
//! Promises: the limit is raised at the start as far as the system lets this
//! user; what that leaves room for is said, and the listener keeps to it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for any fleet that one collector serves.
const WANTED: u64 = 131_072;

/// What everything but connections needs: journal, index, sockets, mail.
const OTHERS: u64 = 512;

/// Below this many connections it is worth a warning.
const CONNECTIONS_EXPECTED: usize = 10_000;

/// Raises the limit and says so when it stays low.
pub(crate) fn raise() {
    let before = getrlimit(Resource::Nofile);
    let hard = before.maximum.unwrap_or(WANTED);
    // Raising the hard limit takes CAP_SYS_RESOURCE; raising to it does not.
    let raised = [WANTED.max(hard), hard].into_iter().any(|files| {
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        setrlimit(Resource::Nofile, limit).is_ok()
    });
    let (files, connections) = (limit(), for_connections());
    if connections < CONNECTIONS_EXPECTED {
        tracing::warn!(
            files,
            connections,
            raised,
            "The limit of open files is low: more agents than that cannot connect. Raise it, \
             with LimitNOFILE= in the unit or `ulimit -n`."
        );
    } else {
        tracing::debug!(
            files,
            connections,
            raised,
            "The limit of open files was looked at."
        );
    }
}

/// Connections that the limit leaves room for.
pub(crate) fn for_connections() -> usize {
    usize::try_from(limit().saturating_sub(OTHERS)).unwrap_or(usize::MAX)
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(WANTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_never_lowers_the_limit() {
        let before = limit();
        raise();
        assert!(limit() >= before);
        assert!(for_connections() > 0);
    }
}
