//! Executables under names that only a mount namespace of an account knows.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

/// A program of the host that is not what runs.
const DISGUISE: &str = "/usr/bin/env";
/// Any account but root (`nobody`).
const ACCOUNT: u32 = 65534;

/// A command as an ordinary account.
fn as_account(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(ACCOUNT).gid(ACCOUNT);
    }
    command.stdin(Stdio::null());
    command
}

/// Whether accounts of this host may make namespaces and mount in them.
fn can_mount() -> bool {
    let mut command = as_account("unshare");
    command.args(["-Urm", "mount", "--bind", "/usr", "/usr"]);
    let is_allowed = command.status().is_ok_and(|status| status.success());
    if !is_allowed {
        eprintln!("skipped: accounts cannot mount in a user namespace here");
    }
    is_allowed
}

/// Its executable once it runs a program of this name.
fn exe_of(child: &Running, comm: &[u8]) -> Exe {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let process = read_pid(child.pid());
        if process.comm == comm {
            return process.exe.value().unwrap().clone();
        }
        assert!(Instant::now() < deadline, "{:?}", process.comm);
        std::thread::yield_now();
    }
}

/// A copy of sleep that everybody may run; in memory where there is tmpfs.
fn program() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = copy_of_sleep(dir.path(), b"program");
    for path in [dir.path(), &path] {
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    (dir, path)
}

/// Runs `program` under the name of the disguise.
fn start_disguised(program: &Path) -> Running {
    let script = r#"mount --bind "$1" "$2" && exec "$2" 600"#;
    let mut command = as_account("unshare");
    command.args(["-Urm", "sh", "-c", script, "sh"]);
    Running::start(command.arg(program).arg(DISGUISE))
}

#[test]
fn a_file_that_an_account_mounts_over_another_does_not_get_its_path() {
    if !can_mount() {
        return;
    }
    let (_dir, path) = program();
    let inside = start_disguised(&path);
    let exe = exe_of(&inside, b"env");
    assert_eq!(exe.link, b"(unreachable)/usr/bin/env");
    assert_eq!((exe.state, exe.in_memory), (ExeState::Unknown, true));

    // The namespaces of whoever runs it need not be the ones it is mounted in.
    let through = format!("/proc/{}/root{DISGUISE}", inside.pid());
    let outside = Running::start(as_account(through).arg("600"));
    let exe = exe_of(&outside, b"env");
    assert_eq!(exe.link, b"(unreachable)/usr/bin/env");
    assert!(exe.in_memory);

    std::fs::remove_file(&path).unwrap();
    let exe = exe_of(&inside, b"env");
    assert_eq!(exe.link, b"(unreachable)/usr/bin/env (deleted)");
    assert_eq!(exe.state, ExeState::Deleted);
}

#[test]
fn a_program_of_the_host_keeps_its_path_in_namespaces() {
    if !can_mount() {
        return;
    }
    let mut command = as_account("unshare");
    let child = Running::start(command.args(["-Urm", "sleep", "600"]));
    let exe = exe_of(&child, b"sleep");
    assert_eq!(exe.state, ExeState::Live);
    assert!(exe.link.starts_with(b"/"), "{:?}", exe.link);
}

#[test]
fn a_container_of_root_keeps_its_paths() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount in the user namespace of the host");
        return;
    }
    let (_dir, path) = program();
    let script = r#"mount --bind "$1" "$2" && exec "$2" 600"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]);
    let child = Running::start(command.arg(&path).arg(DISGUISE));
    let exe = exe_of(&child, b"env");
    assert_eq!(
        (&exe.link[..], exe.state),
        (&b"/usr/bin/env"[..], ExeState::Live)
    );
}
