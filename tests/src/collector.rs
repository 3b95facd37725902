//! A collector under test: its data directory, its configuration, its process
//! and the operator's command that talks to it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::binaries::binary;
use crate::child::Guarded;
use crate::smtp::{PASSWORD, SmtpServer, USERNAME};

/// Every finding is worth a mail, and soon.
const FAST_ALERTS: &str =
    "[alert]\nmin_severity = \"low\"\ngroup_wait = \"1s\"\nmax_per_hour = 100000\n";

/// A collector in a directory of its own.
pub struct Collector {
    directory: PathBuf,
    mail: String,
    alerts: &'static str,
    addresses: Addresses,
    child: Option<Guarded>,
}

/// Where it listens; port 0 until its first start chose one.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Agents' streams.
    pub fleet: String,
    /// Enrolment.
    pub enroll: String,
    /// Prometheus; another port with every start.
    pub metrics: String,
}

impl Addresses {
    fn any() -> Self {
        let anywhere = "127.0.0.1:0".to_owned();
        Self {
            fleet: anywhere.clone(),
            enroll: anywhere.clone(),
            metrics: anywhere,
        }
    }
}

impl Collector {
    /// Makes a new fleet in `directory`; its mail goes to `smtp`.
    ///
    /// # Panics
    /// When `procwarden-collector init` fails.
    #[must_use]
    pub fn init(directory: &Path, smtp: Option<&SmtpServer>) -> Self {
        let mut collector = Self::existing(directory);
        if let Some(smtp) = smtp {
            collector.mail = mail_section(directory, smtp);
        }
        let output = Command::new(binary("procwarden-collector"))
            .args([
                "init",
                "--name",
                "localhost",
                "--name",
                "127.0.0.1",
                "--data-dir",
            ])
            .arg(collector.data_dir())
            .output();
        let output = output.unwrap_or_else(|e| panic!("cannot run init: {e}"));
        assert!(
            output.status.success(),
            "init failed: {}",
            text(&output.stderr)
        );
        collector
    }

    /// Alerts as a configuration without a word about them has it.
    #[must_use]
    pub fn with_default_alerts(mut self) -> Self {
        self.alerts = "";
        self
    }

    /// A collector whose data directory is there already, such as a restored
    /// one. It sends no mail.
    #[must_use]
    pub fn existing(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            mail: String::new(),
            alerts: FAST_ALERTS,
            addresses: Addresses::any(),
            child: None,
        }
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Panics
    /// When it ends before it says where it listens.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "the collector runs already");
        let mut child = self.spawn();
        let mut line = String::new();
        if let Some(stdout) = child.stdout() {
            let _hung_up = BufReader::new(stdout).read_line(&mut line).is_err();
        }
        let address = |what: &str| {
            let found = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix(what));
            found.map(str::to_owned).unwrap_or_else(|| {
                panic!(
                    "the collector said {line:?} instead of its addresses:\n{}",
                    child.log()
                )
            })
        };
        self.addresses = Addresses {
            fleet: address("fleet="),
            enroll: address("enroll="),
            metrics: address("metrics="),
        };
        self.child = Some(child);
    }

    /// Starts it and ends it with SIGKILL a moment later, wherever it is by
    /// then on its way up.
    pub fn start_and_kill(&mut self, after: Duration) {
        let child = self.spawn();
        std::thread::sleep(after);
        child.kill();
    }

    fn spawn(&self) -> Guarded {
        std::fs::write(self.config_file(), self.config())
            .unwrap_or_else(|e| panic!("cannot write the configuration: {e}"));
        let mut command = self.command(&["serve"]);
        Guarded::start(command.stdout(Stdio::piped()), &self.log_file())
    }

    /// One of the collector's own commands, with its configuration.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("procwarden-collector"));
        command.args(arguments);
        command.arg("--config").arg(self.config_file());
        command
    }

    /// Lets its next start choose ports anew: while it is away, others may
    /// take the ones that it had.
    pub fn forget_addresses(&mut self) {
        self.addresses = Addresses::any();
    }

    /// Asks it to stop.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) -> ExitStatus {
        self.child
            .take()
            .map(Guarded::stop)
            .unwrap_or_else(|| panic!("no collector runs"))
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill();
        }
    }

    /// The running process.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn process(&self) -> &Guarded {
        self.child
            .as_ref()
            .unwrap_or_else(|| panic!("no collector runs"))
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("collector")
    }

    /// What it logged so far, over restarts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Runs the operator's command.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn operator(&self, arguments: &[&str]) -> Output {
        let output = Command::new(binary("procwarden"))
            .arg("--collector")
            .arg(format!("unix:{}", self.socket().display()))
            .args(arguments)
            .output();
        output.unwrap_or_else(|e| panic!("cannot run procwarden {arguments:?}: {e}"))
    }

    /// Runs the operator's command, which must succeed, and returns what it
    /// printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    #[must_use]
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.operator(arguments);
        assert!(
            output.status.success(),
            "procwarden {arguments:?} ended with {}: {}",
            output.status,
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// The objects that a command prints with `--json`.
    ///
    /// # Errors
    /// When the command fails or prints something else: the collector may be
    /// on its way up.
    pub fn json(&self, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let output = self.operator(&[arguments, &["--json"]].concat());
        if !output.status.success() {
            return Err(format!("{arguments:?}: {}", text(&output.stderr)));
        }
        let lines = text(&output.stdout);
        lines
            .lines()
            .map(|l| serde_json::from_str(l).map_err(|e| format!("{l}: {e}")))
            .collect()
    }

    /// The findings about a process.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn findings_of(&self, pid: u32) -> Result<Vec<Value>, String> {
        let findings = self.json(&["findings", "list", "--limit", "100000"])?;
        Ok(findings
            .into_iter()
            .filter(|finding| finding["pid"] == pid)
            .collect())
    }

    /// A new token.
    ///
    /// # Panics
    /// When none is made.
    #[must_use]
    pub fn token(&self, arguments: &[&str]) -> String {
        self.told(&[&["token", "create"], arguments].concat())
            .trim()
            .to_owned()
    }

    /// The operator's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    fn config_file(&self) -> PathBuf {
        self.directory.join("collector.toml")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("collector.log")
    }

    fn config(&self) -> String {
        format!(
            "data_dir = {:?}\n\
             [listen]\nfleet = {:?}\nenroll = {:?}\nadmin = \"unix:{}\"\n\
             metrics = \"127.0.0.1:0\"\n\
             {}{}",
            self.data_dir(),
            self.addresses.fleet,
            self.addresses.enroll,
            self.socket().display(),
            self.alerts,
            self.mail,
        )
    }
}

fn mail_section(directory: &Path, smtp: &SmtpServer) -> String {
    let password_file = directory.join("smtp-password");
    let written = std::fs::write(&password_file, format!("{PASSWORD}\n"));
    let private = std::fs::set_permissions(&password_file, Permissions::from_mode(0o600));
    written
        .and(private)
        .unwrap_or_else(|e| panic!("cannot write the password file: {e}"));
    format!(
        "[mail]\ntransport = \"smtp\"\nfrom = \"procwarden@example.test\"\n\
         to = [\"ops@example.test\"]\n\
         smtp.host = \"localhost\"\nsmtp.port = {}\nsmtp.tls = \"starttls\"\n\
         smtp.username = {USERNAME:?}\nsmtp.password_file = {password_file:?}\n\
         smtp.ca_file = {:?}\n",
        smtp.port(),
        smtp.ca_file(),
    )
}

/// Bytes of a program's output as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
