//! Why a command failed, and the exit code that says so: 0 done, 1 failed at
//! run time, 2 the check asked for came out negative, 64 usage error.

use std::io;

/// The end of a command that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Run(String),
    /// It was done, and the answer is no.
    #[error("{0}")]
    Negative(String),
    /// Whoever read the output has seen enough: `procwarden ... | head`.
    #[error("standard output was closed")]
    OutputClosed,
}

impl Failure {
    /// The exit code of the process.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Run(_) => 1,
            Self::Negative(_) => 2,
            Self::Usage(_) => 64,
        }
    }
}

/// Failures to write to standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::Run(format!("cannot write to standard output: {error}"))
    }
}

/// The exit code of what the command line's parser answers: help and version
/// were asked for, everything else is a usage error.
pub(crate) fn exit_code_of_usage(error: &clap::Error) -> u8 {
    if error.use_stderr() { 64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_the_exit_code_of_the_contract() {
        for (failure, code) in [
            (Failure::OutputClosed, 0),
            (Failure::Run("x".into()), 1),
            (Failure::Negative("x".into()), 2),
            (Failure::Usage("x".into()), 64),
            (io::Error::from(io::ErrorKind::BrokenPipe).into(), 0),
            (io::Error::from(io::ErrorKind::StorageFull).into(), 1),
        ] {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }
}
