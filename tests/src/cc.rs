//! Small programs in C: what Rust does not do without `unsafe`, and programs
//! that cost less to start than any of Rust.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Builds `program` from `text`.
///
/// # Errors
/// When there is no compiler, or it fails.
pub fn compile(program: &Path, text: &str, options: &[&str]) -> anyhow::Result<()> {
    let source = program.with_extension("c");
    std::fs::write(&source, text)?;
    let mut cc = Command::new("cc");
    cc.args(options).arg("-o").arg(program).arg(source);
    let status = cc.status().context("this needs a C compiler")?;
    ensure!(status.success(), "{cc:?}: {status}");
    Ok(())
}
