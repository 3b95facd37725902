//! The few variables of an environment that tell something about a suspect:
//! preloaded libraries, the request that started it, who logged in, whether
//! the shell's history is off.
//!
//! Pure: the bytes of `/proc/PID/environ` in, entries out. Promises: bounded;
//! nothing but the names of the list is ever kept, so that passwords and keys
//! in other variables stay where they are. A process can write over its own
//! environment: what is missing proves nothing.

use procwarden_common::finding::EnvironmentEntry;
use procwarden_common::limits::{ENVIRONMENT_MAX, ENVIRONMENT_VALUE_BYTES_MAX};

/// Bytes of an environment that are looked at.
pub(super) const ENVIRON_BYTES_MAX: usize = 256 * 1024;

/// Names that tell. No name belongs here whose value may well hold a secret:
/// REQUEST_URI has tokens in its query, SUDO_COMMAND passwords in arguments.
const TELLING: &[&str] = &[
    // Code that is put into every program (ld.so(8)).
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    // The web request it was started by (RFC 3875).
    "GATEWAY_INTERFACE",
    "REQUEST_METHOD",
    "SCRIPT_FILENAME",
    "SCRIPT_NAME",
    "DOCUMENT_ROOT",
    "REMOTE_ADDR",
    "HTTP_HOST",
    "HTTP_USER_AGENT",
    "SERVER_NAME",
    // Who logged in from where, and became whom.
    "SSH_CONNECTION",
    "SSH_CLIENT",
    "SSH_TTY",
    "SUDO_USER",
    "SUDO_UID",
    "LOGNAME",
    "USER",
    "HOME",
    // A shell without a history.
    "HISTFILE",
    "HISTSIZE",
    "HISTFILESIZE",
    // The key of a known backdoor is what finds its other copies.
    "GS_ARGS",
    // What runs it.
    "CRON_TZ",
    "INVOCATION_ID",
    "container",
    "KUBERNETES_SERVICE_HOST",
];

/// The telling variables, in their order there.
pub(super) fn telling(environ: &[u8]) -> Vec<EnvironmentEntry> {
    environ
        .split(|&b| b == 0)
        .filter_map(entry)
        .take(ENVIRONMENT_MAX)
        .collect()
}

fn entry(variable: &[u8]) -> Option<EnvironmentEntry> {
    let equals = variable.iter().position(|&b| b == b'=')?;
    let (name, value) = (variable.get(..equals)?, variable.get(equals + 1..)?);
    let name = TELLING.iter().find(|known| known.as_bytes() == name)?;
    let kept = value.get(..ENVIRONMENT_VALUE_BYTES_MAX);
    Some(EnvironmentEntry {
        name: (*name).to_owned(),
        value: kept.unwrap_or(value).to_vec(),
        value_truncated: value.len() > ENVIRONMENT_VALUE_BYTES_MAX,
    })
}

#[cfg(test)]
mod tests {
    use procwarden_common::limits::ENVIRONMENT_NAME_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;

    fn words(environ: &[u8]) -> Vec<String> {
        let say =
            |entry: &EnvironmentEntry| format!("{}={}", entry.name, entry.value.escape_ascii());
        telling(environ).iter().map(say).collect()
    }

    #[test]
    fn only_telling_names_are_kept() {
        let environ =
            b"MYSQL_PWD=secret\0REQUEST_URI=/?token=t\0SUDO_COMMAND=x -p s\0LD_PRELOAD=/tmp/x\xff.so\0LD_PRELOAD\0AWS_SECRET_ACCESS_KEY=k\0\
                        ld_preload=/x\0HISTFILE=\0SCRIPT_FILENAME=/home/a/public_html/x.php\0";
        assert_eq!(
            words(environ),
            [
                r"LD_PRELOAD=/tmp/x\xff.so",
                "HISTFILE=",
                "SCRIPT_FILENAME=/home/a/public_html/x.php"
            ]
        );
        // A title that was written over the environment leaves a rest.
        assert_eq!(words(b"ers: master process\0EMOTE_ADDR=1\0"), [""; 0]);
    }

    #[test]
    fn long_values_are_cut_and_many_are_bounded() {
        let long = [b"HOME=".as_slice(), &[b'a'; 9000]].concat();
        let entries = telling(&long);
        assert_eq!(entries[0].value.len(), ENVIRONMENT_VALUE_BYTES_MAX);
        assert!(entries[0].value_truncated);
        assert_eq!(telling(&b"USER=x\0".repeat(5000)).len(), ENVIRONMENT_MAX);
        assert!(
            TELLING
                .iter()
                .all(|name| name.len() <= ENVIRONMENT_NAME_BYTES_MAX)
        );
    }

    proptest! {
        #[test]
        fn no_environment_is_too_strange(environ in proptest::collection::vec(any::<u8>(), 0..300)) {
            for entry in telling(&environ) {
                prop_assert!(TELLING.contains(&entry.name.as_str()));
            }
        }
    }
}
