//! `[actions]` of agent.toml: what this host may do about its findings.
//!
//! Pure: a section in, values out. Everything is off by default. Only the
//! host's own file has these keys; a policy that names one is refused.

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use procwarden_common::toml_config::Section;

/// Time that a script gets by default, and at most.
const SCRIPT_SECS_DEFAULT: u64 = 30;
const SCRIPT_SECS_MAX: u64 = 600;

/// What the section says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ActionsConfig {
    /// Run for a deleted executable (PT_DELETED_ACTION).
    pub(crate) on_deleted: Option<PathBuf>,
    /// Run for what is over a limit (PT_USER_ACTION).
    pub(crate) on_over_limit: Option<PathBuf>,
    /// Run while the load is high (PT_LOAD_ACTION).
    pub(crate) on_load: Option<PathBuf>,
    /// Time that a script gets.
    pub(crate) script_timeout: Duration,
    /// Kill what is over a limit (PT_USERKILL).
    pub(crate) kill_over_limit: bool,
    /// Kill sessions with too many processes (PT_FORKBOMB).
    pub(crate) kill_fork_bomb: bool,
    /// Kill logins that hang in sshd (PT_SSHDHUNG).
    pub(crate) kill_hung_sshd: bool,
    /// Alert also when the process was killed (PT_USERKILL_ALERT).
    pub(crate) alert_on_kill: bool,
    /// Executables whose processes may be killed although they are root's.
    pub(crate) kill_root: Vec<Vec<u8>>,
}

impl Default for ActionsConfig {
    fn default() -> Self {
        Self {
            on_deleted: None,
            on_over_limit: None,
            on_load: None,
            script_timeout: Duration::from_secs(SCRIPT_SECS_DEFAULT),
            kill_over_limit: false,
            kill_fork_bomb: false,
            kill_hung_sshd: false,
            alert_on_kill: true,
            kill_root: Vec::new(),
        }
    }
}

impl ActionsConfig {
    /// Takes the section's keys.
    pub(crate) fn take(section: &Section<'_>) -> Self {
        let default = Self::default();
        let script = |key| section.take_with(key, absolute);
        let on = |key| section.take_bool(key).unwrap_or(false);
        let timeout_max = Duration::from_secs(SCRIPT_SECS_MAX);
        let timeout = section.take_duration("script_timeout", Duration::from_secs(1)..=timeout_max);
        Self {
            on_deleted: script("on_deleted"),
            on_over_limit: script("on_over_limit"),
            on_load: script("on_load"),
            script_timeout: timeout.unwrap_or(default.script_timeout),
            kill_over_limit: on("kill_over_limit"),
            kill_fork_bomb: on("kill_fork_bomb"),
            kill_hung_sshd: on("kill_hung_sshd"),
            alert_on_kill: section.take_bool("alert_on_kill").unwrap_or(true),
            kill_root: Self::take_kill_root(section),
        }
    }

    /// Whether any script may ever run.
    pub(crate) const fn has_scripts(&self) -> bool {
        self.on_deleted.is_some() || self.on_over_limit.is_some() || self.on_load.is_some()
    }

    fn take_kill_root(section: &Section<'_>) -> Vec<Vec<u8>> {
        let paths = section.take_list_with("kill_root", absolute);
        let raw = |path: PathBuf| path.into_os_string().into_vec();
        paths.unwrap_or_default().into_iter().map(raw).collect()
    }
}

pub(crate) fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("write an absolute path")
    }
}
