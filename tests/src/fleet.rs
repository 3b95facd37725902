//! The whole road in one value: a mail server, a collector, and one enrolled
//! agent that scans every second.

use std::path::{Path, PathBuf};

use crate::agent::Agent;
use crate::collector::Collector;
use crate::mails::mails_about;
use crate::payload::{Running, is_root, payload_uid};
use crate::smtp::SmtpServer;
use crate::wait::eventually;

/// Settings that make a test short: what is older than a second is looked at
/// every second.
pub const FAST_SETTINGS: &str = "[scan]\nmin_age_secs = 1\ninterval_secs = 1\n";

/// A running fleet of one host.
pub struct Fleet {
    /// The agent.
    pub agent: Agent,
    /// The collector.
    pub collector: Collector,
    /// The mail server.
    pub smtp: SmtpServer,
    directory: tempfile::TempDir,
}

impl Fleet {
    /// Starts everything.
    ///
    /// # Errors
    /// When a directory or the mail server cannot be made.
    ///
    /// # Panics
    /// When a program does not do its part.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(FAST_SETTINGS)
    }

    /// Starts everything, with a rule that ignores every account but this one:
    /// what other tests run reaches neither journal nor mail, however much it
    /// is. Payloads of the test run as the account (`Payload::account`). Agents
    /// that are not root see the tests' own processes only, and ignore nothing.
    ///
    /// # Errors
    /// When a directory or the mail server cannot be made.
    ///
    /// # Panics
    /// When a program does not do its part.
    pub fn start_for(account: u32) -> anyhow::Result<Self> {
        let rules = is_root().then(|| format!("puser:(?!{account}$).*\n"));
        Self::start_all(FAST_SETTINGS, rules)
    }

    /// Starts everything, with other settings of the policy `default`.
    ///
    /// # Errors
    /// When a directory or the mail server cannot be made.
    ///
    /// # Panics
    /// When a program does not do its part.
    pub fn start_with(settings: &str) -> anyhow::Result<Self> {
        Self::start_all(settings, None)
    }

    fn start_all(settings: &str, rules: Option<String>) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("procwarden-e2e-")
            .tempdir()?;
        let smtp = SmtpServer::start(directory.path())?;
        let mut collector = Collector::init(directory.path(), Some(&smtp));
        collector.start();
        let mut agent = Agent::enrolled(directory.path(), &collector.token(&[]));
        let file = |name: &str, content: &str| -> anyhow::Result<String> {
            let path = directory.path().join(name);
            std::fs::write(&path, content)?;
            Ok(path.display().to_string())
        };
        let settings = file("settings.toml", settings)?;
        let mut set = vec!["policy", "set", "default", "--comment", "for a test"];
        let rules = rules
            .map(|rules| file("first.pignore", &rules))
            .transpose()?;
        match &rules {
            Some(rules) => set.extend([rules, "--settings", &settings]),
            None => set.push(&settings),
        }
        let _published = collector.told(&set);
        agent.start();
        Ok(Self {
            agent,
            collector,
            smtp,
            directory,
        })
    }

    /// Publishes the rules of the policy `default`, and waits until the host
    /// runs them.
    ///
    /// # Panics
    /// When they are refused, or never applied.
    #[track_caller]
    pub fn publish_rules(&self, rules: &str) {
        let file = self.directory.path().join("csf.pignore");
        std::fs::write(&file, rules).unwrap_or_else(|e| panic!("cannot write rules: {e}"));
        let file = file.display().to_string();
        let _published =
            self.collector
                .told(&["policy", "set", "default", &file, "--comment", "for a test"]);
        self.wait_until_applied();
    }

    /// Enrols one more agent in a group, in a directory of its own, and starts
    /// it. Its host has the name of the first one: both are this machine.
    ///
    /// # Panics
    /// When it cannot be enrolled.
    #[track_caller]
    #[must_use]
    pub fn another_agent(&self, name: &str, group: &str) -> Agent {
        let directory = self.path(name);
        std::fs::create_dir(&directory).unwrap_or_else(|e| panic!("cannot make a directory: {e}"));
        let mut agent = Agent::enrolled(&directory, &self.collector.token(&["--group", group]));
        agent.start();
        agent
    }

    /// Waits until every host runs the newest revision of `default`.
    #[track_caller]
    pub fn wait_until_applied(&self) {
        self.wait_until_policy_applied("default");
    }

    /// Waits until every host of a policy runs its newest revision.
    #[track_caller]
    pub fn wait_until_policy_applied(&self, policy: &str) {
        eventually("the policy to be applied", || {
            let output = self.collector.operator(&["policy", "status", policy]);
            if output.status.success() {
                return Ok(());
            }
            Err(format!(
                "{}\n{}",
                crate::collector::text(&output.stdout),
                self.agent.log()
            ))
        });
    }

    /// Waits for the one finding about a payload, with an indicator, and
    /// returns its id.
    #[track_caller]
    #[must_use]
    pub fn wait_for_finding(&self, payload: &Running, indicator: &str) -> String {
        let pid = payload.pid();
        eventually(&format!("{indicator} of process {pid}"), || {
            let findings = self.collector.findings_of(pid)?;
            let [finding] = findings.as_slice() else {
                return Err(format!(
                    "{} findings; agent:\n{}",
                    findings.len(),
                    self.agent.log()
                ));
            };
            let indicators = finding["indicators"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if !indicators.iter().any(|i| i["id"] == indicator) {
                return Err(format!("only {indicators:?}"));
            }
            if finding["uid"] != payload_uid() {
                return Err(format!("it belongs to uid {}", finding["uid"]));
            }
            Ok(finding["id"].as_str().unwrap_or_default().to_owned())
        })
    }

    /// Waits for the mail about a finding; it must be one, and stay one.
    #[track_caller]
    pub fn wait_for_one_mail(&self, finding_id: &str) {
        eventually(&format!("a mail about {finding_id}"), || match mails_about(
            &self.smtp.mails(),
            finding_id,
        ) {
            0 => Err(format!("none came; collector:\n{}", self.collector.log())),
            _ => Ok(()),
        });
    }

    /// How many different mails tell about a finding.
    #[must_use]
    pub fn mails_about(&self, finding_id: &str) -> usize {
        mails_about(&self.smtp.mails(), finding_id)
    }

    /// A path in the fleet's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The fleet's own directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}
