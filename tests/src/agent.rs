//! An agent under test: its state directory and its process.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use rustix::process::Signal;
use serde_json::Value;

use crate::binaries::binary;
use crate::child::Guarded;

/// An agent in a directory of its own.
pub struct Agent {
    directory: PathBuf,
    child: Option<Guarded>,
}

impl Agent {
    /// An agent that is not enrolled yet.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            child: None,
        }
    }

    /// An enrolled agent.
    ///
    /// # Panics
    /// When enrolment fails.
    #[track_caller]
    #[must_use]
    pub fn enrolled(directory: &Path, token: &str) -> Self {
        let agent = Self::new(directory);
        let output = agent.enroll(token);
        assert!(
            output.status.success(),
            "{}",
            crate::collector::text(&output.stderr)
        );
        agent
    }

    /// Tries to enroll.
    ///
    /// # Panics
    /// When the program cannot be run.
    #[must_use]
    pub fn enroll(&self, token: &str) -> Output {
        let output = self.command("enroll").args(["--token", token]).output();
        output.unwrap_or_else(|e| panic!("cannot run enroll: {e}"))
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the agent runs already");
        self.child = Some(Guarded::start(&mut self.command("run"), &self.log_file()));
    }

    /// Asks it to stop.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) -> ExitStatus {
        self.child
            .take()
            .map(Guarded::stop)
            .unwrap_or_else(|| panic!("no agent runs"))
    }

    /// Has it read its configuration again.
    ///
    /// # Panics
    /// When it does not run.
    pub fn reload(&self) {
        let child = self.child.as_ref();
        let child = child.unwrap_or_else(|| panic!("no agent runs"));
        child.signal(Signal::HUP);
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill();
        }
    }

    /// Its PID.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child
            .as_ref()
            .map(Guarded::pid)
            .unwrap_or_else(|| panic!("no agent runs"))
    }

    /// What it logged so far, over restarts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("agent")
    }

    /// One of its sub-commands, with its directories.
    #[must_use]
    pub fn command(&self, name: &str) -> Command {
        let config = self.directory.join("agent.toml");
        if !config.exists() {
            let written = std::fs::write(&config, format!("state_dir = {:?}\n", self.state_dir()));
            written.unwrap_or_else(|e| panic!("cannot write {}: {e}", config.display()));
        }
        let mut command = Command::new(binary("procwarden-agent"));
        command.arg(name).arg("--config").arg(config);
        command
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it has written no status yet.
    pub fn status(&self) -> Result<Value, String> {
        let mut command = self.command("status");
        let output = command.arg("--json").output().map_err(|e| e.to_string())?;
        serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("agent.log")
    }
}
