//! What every command gets: where the collector is, and where to write.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use procwarden_common::clock::UnixMillis;
use tonic::Code;

use crate::client::{self, Admin};
use crate::failure::Failure;
use crate::output::Output;

/// One run of the command.
pub(crate) struct Context {
    socket: PathBuf,
    admin: Option<Admin>,
    /// Standard output and standard error.
    pub(crate) out: Output,
}

impl Context {
    pub(crate) fn new(socket: PathBuf, json: bool) -> Self {
        Self {
            socket,
            admin: None,
            out: Output::new(json),
        }
    }

    /// The collector; connects when first asked, so that a command that needs
    /// none also works without one.
    pub(crate) async fn admin(&mut self) -> Result<&mut Admin, Failure> {
        let admin = match self.admin.take() {
            Some(admin) => admin,
            None => client::connect(&self.socket).await?,
        };
        Ok(self.admin.insert(admin))
    }

    /// Turns the collector's refusal into words; `what` is what was asked
    /// for, such as "list the hosts".
    pub(crate) fn refused(&self, what: &str, status: &tonic::Status) -> Failure {
        client::refused(what, status, &self.socket)
    }

    /// The same where the collector checked what was asked for: what does not
    /// fit the state of things is a negative answer.
    pub(crate) fn judged(&self, what: &str, status: &tonic::Status) -> Failure {
        if status.code() == Code::FailedPrecondition {
            return Failure::Negative(format!("cannot {what}: {}", status.message()));
        }
        self.refused(what, status)
    }

    /// The time.
    pub(crate) fn now(&self) -> UnixMillis {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}
