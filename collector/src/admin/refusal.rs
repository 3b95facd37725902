//! Refusals: from what went wrong to a sentence and a code for the operator.

use tonic::{Code, Status};

use crate::findings::FindingsError;
use crate::hosts::HostLookupError;
use crate::policy::rollout::InvalidPlan;
use crate::policy::{InvalidName, PolicyError};

/// The request itself is wrong.
pub(super) fn invalid(sentence: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, sentence)
}

/// What was asked for does not exist.
pub(super) fn not_found(sentence: impl Into<String>) -> Status {
    Status::new(Code::NotFound, sentence)
}

/// The request is right, but not now.
pub(super) fn not_now(sentence: impl Into<String>) -> Status {
    Status::new(Code::FailedPrecondition, sentence)
}

/// The collector is at fault.
pub(super) fn internal(sentence: impl Into<String>) -> Status {
    let sentence = sentence.into();
    tracing::error!(error = %sentence, "An operator's request failed.");
    Status::new(Code::Internal, sentence)
}

/// Runs what reads the disk off the threads that serve.
pub(super) async fn off_thread<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> Result<R, Status> {
    let cut_short = |error| internal(format!("the request was cut short: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(cut_short)
}

impl From<HostLookupError> for Status {
    fn from(error: HostLookupError) -> Self {
        match &error {
            HostLookupError::Unknown(_) => not_found(error.to_string()),
            HostLookupError::Ambiguous { .. } => invalid(error.to_string()),
        }
    }
}

impl From<InvalidPlan> for Status {
    fn from(error: InvalidPlan) -> Self {
        invalid(error.to_string())
    }
}

impl From<InvalidName> for Status {
    fn from(error: InvalidName) -> Self {
        invalid(error.to_string())
    }
}

impl From<PolicyError> for Status {
    fn from(error: PolicyError) -> Self {
        let sentence = error.to_string();
        match error {
            PolicyError::Name(_) | PolicyError::Limit(_) => invalid(sentence),
            PolicyError::Unknown(_) | PolicyError::UnknownRevision { .. } => not_found(sentence),
            PolicyError::NothingToKeep(_)
            | PolicyError::Raced(_)
            | PolicyError::Overtaken { .. }
            | PolicyError::RollingOut { .. }
            | PolicyError::Union(_)
            | PolicyError::NotNow(_) => not_now(sentence),
            PolicyError::Stopped(_) => internal(sentence),
        }
    }
}

impl From<FindingsError> for Status {
    fn from(error: FindingsError) -> Self {
        match &error {
            FindingsError::InvalidCursor => invalid(error.to_string()),
            FindingsError::Stopped(_) | FindingsError::Read(_) => internal(error.to_string()),
        }
    }
}
