//! A herd of harmless processes to measure scans with: each holds some
//! descriptors and sleeps.
//!
//! Promises: the herd ends with the value that started it, and also when that
//! program dies: every member waits for the end of one pipe.

use std::io::{PipeReader, PipeWriter, Read, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::binaries::binary;
use crate::payload::is_root;

/// An account that nothing else on the machine uses: what the processes of
/// other accounts hold must not count against the herd.
const HERD_UID: u32 = 59_321;

/// Running processes that do nothing.
pub struct Herd {
    members: Vec<Child>,
    leash: Option<PipeWriter>,
}

impl Herd {
    /// Starts `count` processes, as an account where the caller is root, with
    /// `descriptors` open descriptors each, of which `listeners` wait for
    /// connections on loopback. Returns once all of them sleep.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(count: usize, descriptors: usize, listeners: usize) -> anyhow::Result<Self> {
        Self::of(count, || {
            let mut command = Command::new(binary("procwarden-payload"));
            command.args(["hold", &descriptors.to_string(), &listeners.to_string()]);
            as_account(&mut command, HERD_UID);
            command
        })
    }

    /// Starts `count` processes of a program that says one byte when it is
    /// ready and then waits until its standard input closes. Returns once all
    /// of them wait.
    ///
    /// # Errors
    /// When one does not start.
    pub fn of(count: usize, program: impl Fn() -> Command) -> anyhow::Result<Self> {
        let (held, leash) = pipe()?;
        let (mut ready, said) = pipe()?;
        let mut herd = Self {
            members: Vec::with_capacity(count),
            leash: Some(leash),
        };
        for number in 0..count {
            let member = member(program(), &held, &said);
            herd.members
                .push(member.with_context(|| format!("process {number} of the herd"))?);
        }
        drop(said);
        let mut words = vec![0; count];
        ready
            .read_exact(&mut words)
            .context("a process of the herd ended")?;
        Ok(herd)
    }

    /// Their PIDs.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }
}

fn member(mut program: Command, held: &PipeReader, said: &PipeWriter) -> anyhow::Result<Child> {
    program
        .current_dir("/")
        .stdin(held.try_clone()?)
        .stdout(said.try_clone()?)
        .stderr(Stdio::null());
    Ok(program.spawn()?)
}

/// Has a program run as an account where the caller is root.
pub fn as_account(command: &mut Command, uid: u32) {
    if is_root() {
        command.uid(uid).gid(uid);
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        self.leash = None;
        for member in &mut self.members {
            // It may have ended by itself already.
            let _gone = member.wait().is_err();
        }
    }
}
