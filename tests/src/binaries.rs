//! Where the programs under test are. They are built once, with the profile
//! of the tests, so that `cargo test -p procwarden-tests` alone never runs
//! an old build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// The path of a program: `procwarden-agent`, `procwarden-collector`,
/// `procwarden` or `procwarden-payload`.
///
/// # Panics
/// When the programs do not build.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    DIRECTORY.get_or_init(build).join(name)
}

/// `PROCWARDEN_BIN_DIR` names programs that are already built.
fn build() -> PathBuf {
    if let Some(directory) = std::env::var_os("PROCWARDEN_BIN_DIR") {
        return PathBuf::from(directory);
    }
    let profile_directory = profile_directory();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--locked", "--quiet", "--bins"]);
    cargo.args([
        "-p",
        "procwarden-agent",
        "-p",
        "procwarden-collector",
        "-p",
        "procwarden-tests",
    ]);
    if profile_directory.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = profile_directory.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    // What cargo tells a test about its package would reach build scripts that
    // look at those names: ring and all that stands on it were built anew.
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"];
        let is_of_package = |name: &str| of_package.iter().any(|start| name.starts_with(start));
        if name.to_str().is_some_and(is_of_package) {
            cargo.env_remove(name);
        }
    }
    let status = cargo.current_dir(workspace()).status();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "cannot build the programs under test: {status:?}"
    );
    profile_directory
}

/// `target/debug` of `target/debug/deps/e2e-0123` and of
/// `target/debug/procwarden-crash`.
fn profile_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let directory = program.parent().unwrap_or(Path::new(""));
    match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory).to_owned(),
        _ => directory.to_owned(),
    }
}

/// The root of the repository.
#[must_use]
pub fn workspace() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}
