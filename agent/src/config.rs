//! The agent's file, `agent.toml`: read, checked whole, turned into values.
//!
//! Promises: every mistake of a file is named at once, with line and column;
//! nothing starts with a file that has one. The default file may be missing,
//! a named one may not.

use std::io;
use std::path::{Path, PathBuf};

use procwarden_common::diagnostic::{Diagnostic, Level, has_errors};
use procwarden_common::toml_config::TomlFile;

use crate::actions::config::{ActionsConfig, absolute};
use crate::address::Address;
use crate::events;

/// Where the file lies when no other is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/procwarden/agent.toml";
const DEFAULT_STATE_DIR: &str = "/var/lib/procwarden-agent";

const SPOOL_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
const SPOOL_BYTES_MIN: u64 = 64 * 1024;
const SPOOL_BYTES_MAX: u64 = 1024 * 1024 * 1024 * 1024;

/// What the shipped systemd unit grants (CPUQuota=).
const CPU_PERCENT_DEFAULT: u64 = 10;

/// Everything the file can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where the agent keeps what it has to remember.
    pub(crate) state_dir: PathBuf,
    /// The fleet's port, in the place of the one that enrolment found.
    pub(crate) collector: Option<Address>,
    /// Limit of the spool.
    pub(crate) spool_max_bytes: u64,
    /// Whether to ask the kernel for events.
    pub(crate) events: events::Mode,
    /// The agent's share of one processor, in percent.
    pub(crate) cpu_percent: u64,
    /// What this host may do about its findings.
    pub(crate) actions: ActionsConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: DEFAULT_STATE_DIR.into(),
            collector: None,
            spool_max_bytes: SPOOL_BYTES_DEFAULT,
            events: events::Mode::Auto,
            cpu_percent: CPU_PERCENT_DEFAULT,
            actions: ActionsConfig::default(),
        }
    }
}

/// A file that cannot be used: every reason.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct InvalidConfig(pub(crate) Vec<Diagnostic>);

impl Config {
    /// What differs from the configuration that the agent runs with and cannot
    /// change while it runs.
    pub(crate) fn waits_for_a_start(&self, runs: &Self) -> Vec<&'static str> {
        let waits = [
            ("state_dir", self.state_dir != runs.state_dir),
            // Which address enrolment found is read at the start.
            (
                "collector",
                self.collector.is_none() && runs.collector.is_some(),
            ),
            ("[actions]", self.actions != runs.actions),
        ];
        let differs = waits.into_iter().filter(|(_, differs)| *differs);
        differs.map(|(setting, _)| setting).collect()
    }

    /// Reads the file that was named, or the default one if it is there.
    /// Besides the values, what works but perhaps not as meant.
    pub(crate) fn load(named: Option<&Path>) -> Result<(Self, Vec<Diagnostic>), InvalidConfig> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&path.display().to_string(), &text),
            Err(e) if e.kind() == io::ErrorKind::NotFound && named.is_none() => {
                Ok((Self::default(), Vec::new()))
            }
            Err(e) => Err(InvalidConfig(vec![unreadable(path, &e)])),
        }
    }

    /// Reads the text of a file.
    pub(crate) fn parse(file: &str, text: &str) -> Result<(Self, Vec<Diagnostic>), InvalidConfig> {
        let toml = TomlFile::parse(file, text).map_err(InvalidConfig)?;
        let mut config = Self::default();
        let root = toml.root();
        if let Some(dir) = root.take_with("state_dir", absolute) {
            config.state_dir = dir;
        }
        config.collector = root.take_with("collector", str::parse);
        let spool = root.section("spool");
        if let Some(bytes) = spool.take_u64("max_bytes", SPOOL_BYTES_MIN..=SPOOL_BYTES_MAX) {
            config.spool_max_bytes = bytes;
        }
        let events = root.section("events");
        let modes = [("auto", events::Mode::Auto), ("off", events::Mode::Off)];
        if let Some(mode) = events.take_choice("mode", &modes) {
            config.events = mode;
        }
        let limits = root.section("limits");
        if let Some(percent) = limits.take_u64("cpu", 1..=100) {
            config.cpu_percent = percent;
        }
        let actions = root.section("actions");
        config.actions = ActionsConfig::take(&actions);
        drop((root, spool, events, limits, actions));
        let diagnostics = toml.finish();
        if has_errors(&diagnostics) {
            Err(InvalidConfig(diagnostics))
        } else {
            Ok((config, diagnostics))
        }
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic {
        level: Level::Error,
        file: path.display().to_string(),
        line: 0,
        column: 0,
        message: format!("cannot be read: {error}"),
        help: "name another file with --config".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/config/agent.toml"
    ));

    #[test]
    fn what_cannot_change_while_the_agent_runs_is_named() {
        let of = |text: &str| Config::parse("agent.toml", text).unwrap().0;
        let runs = of("collector = \"c.example:7443\"\n");
        assert!(runs.waits_for_a_start(&runs).is_empty());
        for (text, named) in [
            ("", vec!["collector"]),
            ("collector = \"d.example:7443\"\n", vec![]),
            (
                "collector = \"c.example:7443\"\n[events]\nmode = \"off\"\n[limits]\ncpu = 20\n",
                vec![],
            ),
        ] {
            assert_eq!(of(text).waits_for_a_start(&runs), named, "{text}");
        }
    }

    #[test]
    fn the_shipped_file_says_the_defaults_and_every_example_in_it_is_valid() {
        assert_eq!(
            Config::parse("agent.toml", SHIPPED).unwrap(),
            (Config::default(), vec![])
        );
        // `# key = value` is an example, `## words` an explanation.
        let examples: Vec<&str> = SHIPPED
            .lines()
            .map(|line| {
                if line.starts_with("## ") {
                    ""
                } else {
                    line.strip_prefix("# ").unwrap_or(line)
                }
            })
            .collect();
        let (config, warnings) = Config::parse("agent.toml", &examples.join("\n")).unwrap();
        assert_eq!(
            config.collector,
            Some("collector.example.com:7443".parse().unwrap())
        );
        assert_eq!(warnings, []);
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let text =
            "state_dir = 'here'\ncolector = 'x:1'\n[spool]\nmax_bytes = 5\n[events]\nmode = 'on'\n";
        let InvalidConfig(wrong) = Config::parse("a.toml", text).unwrap_err();
        let lines: Vec<u32> = wrong
            .iter()
            .filter(|d| d.level == Level::Error)
            .map(|d| d.line)
            .collect();
        assert_eq!(lines, [1, 2, 4, 6], "{wrong:?}");
        assert!(
            wrong.iter().any(|d| d.help == "did you mean 'collector'?"),
            "{wrong:?}"
        );
    }

    #[test]
    fn actions_are_off_until_the_host_s_own_file_asks_for_them() {
        let text = "[events]\nmode = 'off'\n[limits]\ncpu = 5\n[actions]\nkill_over_limit = true\n\
                    on_load = '/x'\nkill_root = ['/opt/batch']\nalert_on_kill = false\n";
        let (config, warnings) = Config::parse("a.toml", text).unwrap();
        assert_eq!((config.events, config.cpu_percent), (events::Mode::Off, 5));
        let actions = ActionsConfig {
            kill_over_limit: true,
            on_load: Some("/x".into()),
            kill_root: vec![b"/opt/batch".to_vec()],
            alert_on_kill: false,
            ..ActionsConfig::default()
        };
        assert_eq!((config.actions, warnings), (actions, vec![]));
        let text = "[actions]\non_deleted = 'x'\nkill_overlimit = true\nkill_root = ['y']\n";
        let InvalidConfig(wrong) = Config::parse("a.toml", text).unwrap_err();
        assert_eq!(wrong.iter().map(|d| d.line).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load(Some(Path::new("/nonexistent/agent.toml")))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/nonexistent/agent.toml: error: cannot be read"),
            "{error}"
        );
    }
}
