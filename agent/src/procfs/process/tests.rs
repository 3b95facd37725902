//! Live tests on this program's own children, and on a tree made up in a
//! temporary directory. Each test looks at its own processes only.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use procwarden_common::process::ExeState;

use super::*;
use crate::detect::sample;
use crate::procfs::live::Running;

mod mounts;

/// Starts a program that sleeps.
fn start(program: &Path, argv0: Option<&[u8]>, args: &[&[u8]]) -> Running {
    let mut command = Command::new(program);
    if let Some(argv0) = argv0 {
        command.arg0(OsStr::from_bytes(argv0));
    }
    command.args(args.iter().map(|arg| OsStr::from_bytes(arg)));
    Running::start(command.stdin(Stdio::null()))
}

fn read_pid(pid: u32) -> Process {
    let root = ProcRoot::open(Path::new("/proc")).unwrap();
    let (process, errors) = read_in(&root, pid);
    assert_eq!(errors, 0);
    process
}

fn read_in(root: &ProcRoot, pid: u32) -> (Process, u64) {
    let dir = root.process(pid).unwrap();
    let moment = Moment {
        uptime_millis: root.uptime_millis(),
        booted_at: UnixMillis(0),
    };
    let mut reader = ProcessReader::new();
    let opened = reader
        .open(root, dir, moment, &mut |uid| {
            Arc::from(uid.to_string().into_bytes())
        })
        .unwrap();
    if !opened.has_program() {
        return (opened.process, reader.counts.errors);
    }
    let read = reader.read_programs(root, vec![opened]).remove(0);
    let opened = read.unwrap().unwrap();
    (opened.process, reader.counts.errors)
}

/// A copy of sleep under a name of its own.
fn copy_of_sleep(dir: &Path, name: &[u8]) -> std::path::PathBuf {
    let path = dir.join(OsStr::from_bytes(name));
    std::fs::copy("/bin/sleep", &path).unwrap();
    path
}

/// Starts a copy of sleep, changes its file, and tells what became of it.
fn state_after(name: &[u8], change: impl FnOnce(&Path, &Path)) -> (ExeState, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = copy_of_sleep(dir.path(), name);
    let child = start(&path, None, &[b"600"]);
    change(&path, &dir.path().join("other"));
    let process = read_pid(child.pid());
    let exe = process.exe.value().unwrap();
    (exe.state, exe.link.clone())
}

#[test]
fn a_live_executable_is_live_whatever_its_name_says() {
    assert_eq!(state_after(b"x", |_, _| {}).0, ExeState::Live);
    let (state, link) = state_after(b"x (deleted)", |_, _| {});
    assert_eq!(state, ExeState::Live);
    assert!(link.ends_with(b"/x (deleted)"));
    assert_eq!(
        state_after(b"x\nUid:\t0 (deleted)", |_, _| {}).0,
        ExeState::Live
    );
}

#[test]
fn a_deleted_executable_is_deleted_even_with_another_hard_link() {
    let unlink = |path: &Path, _: &Path| std::fs::remove_file(path).unwrap();
    assert_eq!(state_after(b"x", unlink).0, ExeState::Deleted);
    assert_eq!(state_after(b"x (deleted)", unlink).0, ExeState::Deleted);
    let keep = |path: &Path, other: &Path| {
        std::fs::hard_link(path, other).unwrap();
        std::fs::remove_file(path).unwrap();
    };
    assert_eq!(state_after(b"x", keep).0, ExeState::Deleted);
    let remove_all =
        |path: &Path, _: &Path| std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(state_after(b"x", remove_all).0, ExeState::Deleted);
}

#[test]
fn a_replaced_executable_is_replaced() {
    let rename_over = |path: &Path, other: &Path| {
        std::fs::copy("/bin/sleep", other).unwrap();
        std::fs::rename(other, path).unwrap();
    };
    assert_eq!(state_after(b"x", rename_over).0, ExeState::Replaced);
    let link_again = |path: &Path, other: &Path| {
        std::fs::hard_link(path, other).unwrap();
        std::fs::remove_file(path).unwrap();
        std::fs::hard_link(other, path).unwrap();
    };
    assert_eq!(state_after(b"x", link_again).0, ExeState::Live);
}

#[test]
fn a_file_in_a_directory_named_like_memory_files_is_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let strange = dir.path().join("memfd:x");
    std::fs::create_dir(&strange).unwrap();
    let path = copy_of_sleep(&strange, b"y");
    let child = start(&path, None, &[b"600"]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        read_pid(child.pid()).exe.value().unwrap().state,
        ExeState::Deleted
    );
}

#[test]
fn an_executable_in_memory_is_a_memory_file() {
    let fd = rustix::fs::memfd_create("procwarden-test", rustix::fs::MemfdFlags::empty()).unwrap();
    let mut file = std::fs::File::from(fd);
    std::io::Write::write_all(&mut file, &std::fs::read("/bin/sleep").unwrap()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    let child = start(
        Path::new(&format!("/proc/self/fd/{number}")),
        None,
        &[b"600"],
    );
    let process = read_pid(child.pid());
    let exe = process.exe.value().unwrap();
    assert_eq!(exe.state, ExeState::Memfd);
    assert_eq!(exe.path(), b"/memfd:procwarden-test");
}

#[test]
fn names_and_arguments_of_any_bytes_are_kept_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = copy_of_sleep(dir.path(), b") S 1\n(\xff");
    let child = start(&path, Some(b"[kworker/0:1]\xfe\n"), &[b"600"]);
    let process = read_pid(child.pid());
    assert_eq!(process.comm, b") S 1\n(\xff");
    assert_eq!(
        process.cmdline.value().unwrap().raw,
        b"[kworker/0:1]\xfe\n\x00600\0"
    );
    assert_eq!(process.uid, rustix::process::geteuid().as_raw());
    assert_eq!(process.ppid, std::process::id());
    assert!(!process.kernel_thread && process.vsz_bytes > 0 && process.age_secs < 3600);
}

#[test]
fn empty_arguments_are_no_reason_to_lose_the_others() {
    let child = start(Path::new("/bin/sleep"), Some(b""), &[b"600"]);
    assert_eq!(
        read_pid(child.pid()).cmdline.value().unwrap().raw,
        b"\x00600\0"
    );
}

#[test]
fn a_zombie_has_no_executable_and_that_is_no_error() {
    let mut child = Command::new("/bin/true").spawn().unwrap();
    let root = ProcRoot::open(Path::new("/proc")).unwrap();
    while root.process(child.id()).unwrap().stat().unwrap().state != b'Z' {
        std::thread::yield_now();
    }
    let process = read_pid(child.id());
    assert_eq!((process.state, &process.exe), (b'Z', &Reading::Absent));
    child.wait().unwrap();
    let mut reader = ProcessReader::new();
    let moment = Moment {
        uptime_millis: 0,
        booted_at: UnixMillis(0),
    };
    let gone = root.process(child.id()).and_then(|dir| {
        reader
            .open(&root, dir, moment, &mut |_| Arc::from(&b""[..]))
            .map(|_| ())
    });
    assert_eq!(gone, Err(Failed::Vanished));
}

#[test]
fn a_handle_outlives_its_process_without_showing_another() {
    let child = start(Path::new("/bin/sleep"), None, &[b"600"]);
    let root = ProcRoot::open(Path::new("/proc")).unwrap();
    let dir = root.process(child.pid()).unwrap();
    assert!(dir.stat().is_ok());
    drop(child);
    assert_eq!(dir.stat(), Err(Failed::Vanished));
    assert_eq!(dir.link("exe"), Err(Failed::Vanished));
}

#[test]
fn a_long_command_line_is_cut_and_marked() {
    let long = vec![b'x'; CMDLINE_BYTES_MAX * 2];
    let child = start(Path::new("/bin/sleep"), Some(&long), &[b"600"]);
    let process = read_pid(child.pid());
    let cmdline = process.cmdline.value().unwrap();
    assert_eq!(
        (cmdline.raw.len(), cmdline.truncated),
        (CMDLINE_BYTES_MAX, true)
    );
}

#[test]
fn a_path_longer_than_a_page_hides_no_executable() {
    use rustix::fs::{Mode, OFlags};
    let top = tempfile::tempdir().unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(rustix::fs::CWD, top.path(), flags, Mode::empty()).unwrap();
    for _ in 0..20 {
        let name = "d".repeat(250);
        rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    use std::os::fd::AsRawFd;
    let deep = format!("/proc/{}/fd/{}", std::process::id(), dir.as_raw_fd());
    let path = copy_of_sleep(Path::new(&deep), b"x");
    let child = start(&path, None, &[b"600"]);
    for expected in [ExeState::Unknown, ExeState::Deleted] {
        let process = read_pid(child.pid());
        let exe = process.exe.value().unwrap();
        let top = top.path().canonicalize().unwrap();
        assert!(exe.link.starts_with(b"(unreachable)/"));
        let claimed = exe.claimed_path();
        assert!(claimed.starts_with(top.as_os_str().as_bytes()));
        assert!(exe.path().ends_with(b"d/..."));
        assert_eq!(exe.state, expected);
        drop(std::fs::remove_file(&path));
    }
}

#[test]
fn when_all_texts_are_too_long_together_long_ones_are_cut_and_say_so() {
    let mut reader = ProcessReader::new();
    reader.text_bytes_left = 1000;
    let mut keep = |bytes: usize| {
        let cmdline = reader.bounded_cmdline(vec![b'x'; bytes], false);
        (cmdline.raw.len(), cmdline.truncated)
    };
    assert_eq!(keep(900), (900, false));
    assert_eq!(keep(900), (TEXT_SHORT_BYTES, true));
    assert_eq!(keep(400), (400, false));
    assert_eq!(reader.counts.texts_cut, 1);
    reader.begin_scan(0);
    assert_eq!(reader.text_bytes_left, TEXTS_BYTES_MAX);
}

#[test]
fn a_path_that_is_cut_says_where_it_begins_and_is_covered_by_no_rule_about_paths() {
    let mut reader = ProcessReader::new();
    reader.text_bytes_left = 1000;
    let path = [b"/dev/shm/".as_slice(), &[b'x'; 891]].concat();
    let mut keep = |path: &[u8]| {
        let process = sample::with_exe(1000, path, ExeState::Live);
        let exe = process.exe.value().unwrap().clone();
        reader.bounded_exe(exe).link
    };
    assert_eq!(keep(&path), path);
    let cut = keep(&path);
    assert!(cut.starts_with(b"(unreachable)/dev/shm/xxx") && cut.ends_with(b"x/..."));
    assert_eq!(cut.len(), TEXT_SHORT_BYTES);
    // One that led nowhere before is cut in the same way.
    assert_eq!(keep(&[b"(unreachable)", path.as_slice()].concat()), cut);
    assert_eq!(keep(b"/usr/bin/sleep"), b"/usr/bin/sleep");
    assert_eq!(reader.counts.texts_cut, 2);
}

#[test]
fn a_young_process_of_root_may_have_left_it_and_any_other_shows_that() {
    let expected = |uid, kernel_thread, age_secs| {
        let mut process = read_pid(std::process::id());
        (process.uid, process.kernel_thread, process.age_secs) = (uid, kernel_thread, age_secs);
        expected_owner(&process)
    };
    let table = [
        (0, false, SETTLED_SECS - 1, None),
        (0, false, SETTLED_SECS, Some(0)),
        (0, true, 0, Some(0)),
        (1000, false, 0, Some(1000)),
    ];
    for (uid, kernel_thread, age_secs, owner) in table {
        assert_eq!(
            expected(uid, kernel_thread, age_secs),
            owner,
            "{uid} {age_secs}"
        );
    }
}

#[test]
fn a_process_that_cannot_be_read_in_time_is_judged_by_what_is_left() {
    let child = start(Path::new("/bin/sleep"), None, &[b"600"]);
    let key = read_pid(child.pid()).key;
    let mut root = ProcRoot::open(Path::new("/proc")).unwrap();
    let hang = |root: &mut ProcRoot, what| {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        root.patience.set_wait(Duration::from_millis(10));
        assert_eq!(root.ask(key, what, move || ended.recv().is_ok()), None);
        root.patience.set_wait(Duration::from_secs(120));
        end
    };
    let _memory = hang(&mut root, What::Memory);
    let (process, errors) = read_in(&root, child.pid());
    assert_eq!((&process.cmdline, errors), (&Reading::Unreadable, 1));
    let live = process.exe.value().unwrap().clone();
    assert_eq!(live.state, ExeState::Live);

    let _file = hang(&mut root, What::File);
    let (process, _) = read_in(&root, child.pid());
    let exe = process.exe.value().unwrap();
    assert_eq!(exe.state, ExeState::Unknown);
    assert_eq!(exe.link, [b"(unreachable)", &live.link[..]].concat());
    assert_eq!(process.comm, b"sleep");
    assert!(
        root.note_on_hangs()
            .unwrap()
            .contains(&child.pid().to_string())
    );
}

#[test]
fn one_that_cannot_be_read_among_others_is_the_only_one() {
    let children: Vec<Running> = (0..3)
        .map(|_| start(Path::new("/bin/sleep"), None, &[b"600"]))
        .collect();
    let key = read_pid(children[1].pid()).key;
    let mut root = ProcRoot::open(Path::new("/proc")).unwrap();
    let (_end, ended) = std::sync::mpsc::channel::<()>();
    root.patience.set_wait(Duration::from_millis(10));
    let hung = root.ask(key, What::Memory, move || ended.recv().is_ok());
    assert_eq!(hung, None);
    root.patience.set_wait(Duration::from_secs(120));
    let mut reader = ProcessReader::new();
    let moment = Moment {
        uptime_millis: root.uptime_millis(),
        booted_at: UnixMillis(0),
    };
    let opened = children.iter().map(|child| {
        let dir = root.process(child.pid()).unwrap();
        let mut name = |_| Arc::from(&b""[..]);
        reader.open(&root, dir, moment, &mut name).unwrap()
    });
    let opened = opened.collect();
    let read = reader.read_programs(&root, opened);
    let read: Vec<Process> = read
        .into_iter()
        .map(|read| read.unwrap().unwrap().process)
        .collect();
    for (number, (process, child)) in read.iter().zip(&children).enumerate() {
        assert_eq!(process.key.pid, child.pid());
        assert_eq!(process.exe.value().unwrap().state, ExeState::Live);
        let cmdline = process.cmdline.value().map(|cmdline| &cmdline.raw[..]);
        let expected = (number != 1).then_some(&b"/bin/sleep\x00600\x00"[..]);
        assert_eq!(cmdline, expected);
    }
}
