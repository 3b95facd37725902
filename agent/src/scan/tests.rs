//! Scans of made-up trees, where every process is known, and live scans that
//! look at this program's own children only.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use procwarden_common::policy::{EffectivePolicy, PolicyDocument, PolicyFile};

use super::*;
use crate::evidence::Depth;
use crate::procfs::live::Running;

pub(super) const NOW: UnixMillis = UnixMillis(1_795_424_400_000);

/// A tree that looks like /proc.
struct Tree(tempfile::TempDir);

/// What one made-up process shows.
#[derive(Clone)]
struct Fake<'a> {
    pid: u32,
    uid: u32,
    comm: &'a str,
    cmdline: &'a [u8],
    exe: Option<&'a str>,
    flags: u32,
    state: char,
    threads: u32,
    sockets: &'a [u64],
}

const SLEEP: Fake<'static> = Fake {
    pid: 1,
    uid: 54321,
    comm: "sleep",
    cmdline: b"sleep\x00600\0",
    exe: Some("/usr/bin/sleep"),
    flags: 0x40_0100,
    state: 'S',
    threads: 1,
    sockets: &[],
};

impl Tree {
    fn new(processes: &[Fake<'_>]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let dir = tree.path();
        std::fs::create_dir_all(dir.join("sys/kernel/random")).unwrap();
        let boot_id = "0b6f8a0e-6d0a-4f0e-9d9c-3c1c7d2a9b11\n";
        std::fs::write(dir.join("sys/kernel/random/boot_id"), boot_id).unwrap();
        std::fs::write(dir.join("sys/kernel/hostname"), "web1.example.net\n").unwrap();
        std::fs::write(dir.join("uptime"), "10000.00 1.00\n").unwrap();
        processes.iter().for_each(|process| tree.add(process));
        tree
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn add(&self, fake: &Fake<'_>) {
        use std::os::unix::fs::symlink;
        let dir = self.path().join(fake.pid.to_string());
        std::fs::create_dir_all(dir.join("fd")).unwrap();
        std::fs::create_dir_all(dir.join("ns")).unwrap();
        std::fs::create_dir_all(dir.join("net")).unwrap();
        let Fake {
            pid,
            uid,
            comm,
            state,
            flags,
            threads,
            ..
        } = fake;
        let stat = format!(
            "{pid} ({comm}) {state} 0 {pid} {pid} 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 {} 614400000 200\n",
            100 + pid
        );
        std::fs::write(dir.join("stat"), stat).unwrap();
        let status =
            format!("Name:\tx\nUid:\t0\t{uid}\t0\t0\nVmSize:\t 600000 kB\nVmRSS:\t 800 kB\n");
        std::fs::write(dir.join("status"), status).unwrap();
        std::fs::write(dir.join("cmdline"), fake.cmdline).unwrap();
        if let Some(exe) = fake.exe {
            symlink(exe, dir.join("exe")).unwrap();
        }
        symlink("net:[4026531840]", dir.join("ns/net")).unwrap();
        let tcp = "heading\n\
            0: 00000000:9859 00000000:0000 0A 0:0 00:0 0 0 0 71 1\n\
            1: 0100000A:C350 0200000A:0016 01 0:0 00:0 0 0 0 72 1\n";
        std::fs::write(dir.join("net/tcp"), tcp).unwrap();
        for (number, inode) in fake.sockets.iter().enumerate() {
            symlink(
                format!("socket:[{inode}]"),
                dir.join(format!("fd/{number}")),
            )
            .unwrap();
        }
    }

    /// Two scans; the suspects of the second, as `PID id id ...`.
    fn suspects(&self, policy: &Policy) -> Vec<String> {
        let mut scanner = Scanner::new(&self.path()).unwrap();
        scanner.scan(policy, NOW);
        describe(&scanner.scan(policy, NOW))
    }
}

fn describe(outcome: &ScanOutcome) -> Vec<String> {
    let reported = outcome
        .suspects
        .iter()
        .filter(|suspect| suspect.verdict == Verdict::Report);
    let described = reported.map(|suspect| {
        let who = match suspect.bare.subject {
            Subject::Process(key) => key.pid.to_string(),
            Subject::Account { uid, .. } => format!("account {uid}"),
            Subject::Host { .. } => "host".to_owned(),
        };
        let ids = suspect
            .bare
            .indicators
            .iter()
            .map(|i| format!(" {}={}", i.id, i.severity));
        format!("{who}{}", ids.collect::<String>())
    });
    described.collect()
}

fn policy(rules: &str, settings: &str) -> Policy {
    let files = vec![PolicyFile {
        path: "test.pignore".to_owned(),
        content: rules.as_bytes().to_vec(),
    }];
    let document = PolicyDocument {
        name: "test".to_owned(),
        revision: 1,
        files,
        settings: settings.to_owned(),
    };
    Policy::compile(&EffectivePolicy {
        documents: vec![document],
    })
    .unwrap()
    .0
}

fn herd() -> Vec<Fake<'static>> {
    vec![
        SLEEP,
        Fake {
            pid: 2,
            comm: "kthreadd",
            exe: None,
            cmdline: b"",
            flags: 0x20_8040,
            uid: 0,
            ..SLEEP
        },
        Fake {
            pid: 3,
            comm: "kworker/0:1",
            ..SLEEP
        },
        Fake {
            pid: 4,
            exe: Some("/dev/shm/no-such-file/x (deleted)"),
            ..SLEEP
        },
        Fake {
            pid: 5,
            exe: Some("/memfd:x (deleted)"),
            ..SLEEP
        },
        Fake {
            pid: 6,
            sockets: &[71],
            ..SLEEP
        },
        Fake {
            pid: 7,
            sockets: &[72, 72],
            ..SLEEP
        },
        Fake {
            pid: 8,
            exe: Some("/tmp/installer"),
            uid: 0,
            ..SLEEP
        },
        Fake {
            pid: 9,
            exe: Some("/tmp/installer"),
            uid: 0,
            sockets: &[71],
            ..SLEEP
        },
        Fake {
            pid: 10,
            comm: "[x]",
            exe: None,
            state: 'Z',
            ..SLEEP
        },
    ]
}

#[test]
fn every_kind_of_suspect_is_found_and_nothing_else() {
    let expected = [
        "3 fake-kernel-thread=critical",
        "4 exe-deleted=high exe-in-volatile-dir=high",
        "5 exe-memfd=critical",
        "6 unexpected-listener=high",
        "7 network-connection=medium",
        "9 exe-in-volatile-dir=medium",
    ];
    assert_eq!(Tree::new(&herd()).suspects(&Policy::default()), expected);
}

#[test]
fn what_can_race_needs_a_second_scan() {
    let tree = Tree::new(&herd());
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let first = scanner.scan(&Policy::default(), NOW);
    let at_once = [
        "3 fake-kernel-thread=critical",
        "5 exe-memfd=critical",
        "7 network-connection=medium",
    ];
    assert_eq!(describe(&first), at_once);
    assert!(scanner.awaits_confirmation());
    let second = scanner.scan(&Policy::default(), NOW);
    assert_eq!(second.suspects.len(), 6);
    assert!(!scanner.awaits_confirmation());
    assert_eq!(
        (
            second.stats.processes,
            second.stats.findings,
            second.stats.read_errors
        ),
        (10, 6, 0)
    );
    assert_eq!((second.alive.len(), second.notes.len()), (10, 0));
}

#[test]
fn a_look_sees_these_processes_only_and_says_when_to_look_again() {
    let tree = Tree::new(&herd());
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let policy = policy("", "");
    let mut look = |pids: &[u32]| {
        let outcome = scanner.look(pids, &policy, NOW);
        let ids = outcome.suspects.iter().map(|suspect| {
            let ids = suspect.bare.indicators.iter();
            ids.map(|indicator| indicator.id.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        });
        let ids: Vec<String> = ids.collect();
        (ids, outcome.again, outcome.stats.processes)
    };
    let none: Vec<String> = Vec::new();
    let again = vec![(4, CONFIRM_PAUSE)];
    assert_eq!(look(&[1, 4, 4711]), (none, again, 2));
    let deleted = vec!["exe-deleted exe-in-volatile-dir".to_owned()];
    assert_eq!(look(&[1, 4]), (deleted, vec![], 2));
}

#[test]
fn a_look_at_the_young_judges_disguises_and_waits_for_the_rest() {
    let tree = Tree::new(&herd());
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let policy = policy("", "[scan]\nmin_age_secs = 20000\n");
    let outcome = scanner.look(&[3, 4, 5, 6, 7], &policy, NOW);
    let found: Vec<String> = outcome
        .suspects
        .iter()
        .map(|s| s.bare.indicators[0].id.to_string())
        .collect();
    assert_eq!(found, ["fake-kernel-thread", "exe-memfd"]);
    let [(4, wait)] = outcome.again[..] else {
        panic!("{:?}", outcome.again);
    };
    assert!(wait > Duration::from_secs(9000), "{wait:?}");
    // A scan that leaves the young alone says nothing of them.
    let scan = scanner.scan(&policy, NOW);
    assert_eq!((scan.suspects.len(), scan.alive.len()), (0, 10));
    // But for the kernel thread, and the one that has ended.
    assert_eq!(scan.young.len(), 8);
}

#[test]
fn a_process_that_only_a_look_saw_has_not_ended_when_it_cannot_be_read() {
    let tree = Tree::new(&[SLEEP]);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    scanner.scan(&Policy::default(), NOW);
    tree.add(&Fake { pid: 2, ..SLEEP });
    scanner.look(&[2], &Policy::default(), NOW);
    std::fs::write(tree.path().join("2/stat"), "nonsense").unwrap();
    assert_eq!(scanner.scan(&Policy::default(), NOW).alive.len(), 2);
}

#[test]
fn a_process_whose_first_thread_has_ended_is_seen_through_another() {
    let leader = Fake {
        pid: 7,
        threads: 2,
        state: 'Z',
        exe: None,
        cmdline: b"",
        ..SLEEP
    };
    let tree = Tree::new(&[leader]);
    let task = Tree(tempfile::tempdir_in(tree.path()).unwrap());
    task.add(&Fake {
        pid: 8,
        sockets: &[71],
        exe: Some("/tmp/x"),
        ..SLEEP
    });
    std::fs::create_dir_all(tree.path().join("7/task/7")).unwrap();
    std::fs::rename(task.path().join("8"), tree.path().join("7/task/8")).unwrap();
    let expected = ["7 exe-in-volatile-dir=high unexpected-listener=high"];
    assert_eq!(tree.suspects(&Policy::default()), expected);
}

#[test]
fn a_socket_of_another_namespace_is_found_through_whoever_is_there() {
    let listener = Fake {
        sockets: &[71],
        ..SLEEP
    };
    let neighbour = Fake { pid: 2, ..SLEEP };
    let tree = Tree::new(&[listener, neighbour]);
    // Process 1 has moved to a namespace without sockets.
    let link = tree.path().join("1/ns/net");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("net:[5]", &link).unwrap();
    std::fs::write(tree.path().join("1/net/tcp"), "heading\n").unwrap();
    assert_eq!(
        tree.suspects(&Policy::default()),
        ["1 unexpected-listener=high"]
    );
}

#[test]
fn rules_cover_processes_and_the_answer_names_the_rule() {
    let tree = Tree::new(&herd());
    let policy = policy("exe:/usr/bin/sleep\nuser:nosuchuser\n", "");
    let expected = [
        "4 exe-deleted=high exe-in-volatile-dir=high",
        "5 exe-memfd=critical",
        "9 exe-in-volatile-dir=medium",
    ];
    assert_eq!(tree.suspects(&policy), expected);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let outcome = scanner.scan(&policy, NOW);
    let ignored = outcome
        .suspects
        .iter()
        .find_map(|suspect| match &suspect.verdict {
            Verdict::Ignored(rule) => Some(rule.to_string()),
            Verdict::Report => None,
        });
    assert_eq!(ignored.as_deref(), Some("exe:/usr/bin/sleep"));
}

#[test]
fn the_process_count_of_an_account_spares_what_rules_cover() {
    let tree = Tree::new(&herd());
    let suspects = |rules: &str, limit: u32| {
        let policy = policy(rules, &format!("[limits]\nuser_processes = {limit}\n"));
        tree.suspects(&policy)
            .into_iter()
            .filter(|line| line.starts_with("account"))
            .collect::<Vec<_>>()
    };
    // Six processes: no kernel thread, no root, no zombie; two deleted ones.
    assert_eq!(suspects("", 5), ["account 54321 user-process-count=medium"]);
    assert!(suspects("", 6).is_empty());
    assert!(suspects("exe:/usr/bin/sleep\n", 5).is_empty());
    assert_eq!(
        suspects("exe:/usr/bin/sleep\n", 1),
        ["account 54321 user-process-count=medium"]
    );
}

#[test]
fn limits_on_processes_are_medium() {
    let tree = Tree::new(&[SLEEP]);
    let policy = policy(
        "",
        "[limits]\nprocess_vsz_mb = 512\nprocess_age_secs = 1800\n",
    );
    assert_eq!(
        tree.suspects(&policy),
        ["1 process-virtual-memory=medium process-run-time=medium"]
    );
}

#[test]
fn an_unreadable_process_is_counted_and_has_not_ended() {
    let tree = Tree::new(&[SLEEP, Fake { pid: 2, ..SLEEP }]);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let before = scanner.scan(&Policy::default(), NOW);
    std::fs::write(tree.path().join("2/stat"), "nonsense").unwrap();
    let after = scanner.scan(&Policy::default(), NOW);
    assert_eq!(after.alive, before.alive);
    assert_eq!((after.stats.read_errors, after.stats.processes), (1, 2));
    std::fs::remove_dir_all(tree.path().join("2")).unwrap();
    assert_eq!(scanner.scan(&Policy::default(), NOW).alive.len(), 1);
}

#[test]
fn a_listed_process_has_not_ended_though_nothing_was_ever_read_of_it() {
    let tree = Tree::new(&[SLEEP, Fake { pid: 2, ..SLEEP }]);
    let boot_id = Scanner::new(&tree.path()).unwrap().boot_id();
    let reported_before = Subject::Process(ProcessKey {
        boot_id,
        pid: 2,
        start_time: 102,
    });
    std::fs::write(tree.path().join("2/stat"), "no stat").unwrap();
    // As after a restart: no scan of this run has read it.
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    for _ in 0..2 {
        let outcome = scanner.scan(&Policy::default(), NOW);
        assert!(is_alive(&outcome, &reported_before));
    }
    std::fs::remove_dir_all(tree.path().join("2")).unwrap();
    let outcome = scanner.scan(&Policy::default(), NOW);
    assert!(!is_alive(&outcome, &reported_before));
}

#[test]
fn a_process_without_readable_status_is_still_a_process() {
    let tree = Tree::new(&[SLEEP]);
    std::fs::write(tree.path().join("1/status"), "nonsense").unwrap();
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let outcome = scanner.scan(&Policy::default(), NOW);
    assert_eq!((outcome.alive.len(), outcome.stats.read_errors), (1, 1));
}

#[test]
fn a_process_under_the_directory_of_another_is_said_and_has_not_ended() {
    let tree = Tree::new(&[SLEEP, Fake { pid: 2, ..SLEEP }]);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let before = scanner.scan(&policy("", ""), NOW);
    let stat = |pid: u32| tree.path().join(format!("{pid}/stat"));
    std::fs::copy(stat(1), stat(2)).unwrap();
    let after = scanner.scan(&policy("", ""), NOW);
    assert_eq!(after.alive, before.alive);
    assert_eq!(after.stats.read_errors, 1);
    assert!(
        after
            .notes
            .iter()
            .any(|note| note.contains("mounted over 1"))
    );
}

#[test]
fn a_directory_that_is_no_proc_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let error = Scanner::new(dir.path()).err().unwrap();
    assert!(format!("{error:#}").contains("is"), "{error:#}");
    assert!(format!("{error}").contains("a mounted /proc?"));
}

/// Scans until something is reported; how many scans that took.
fn scans_until(scanner: &mut Scanner, policy: &Policy, suspect: &str) -> u64 {
    let found = (1..=100).find(|_| {
        let described = describe(&scanner.scan(policy, NOW));
        described.iter().any(|line| line.starts_with(suspect))
    });
    found.unwrap_or_else(|| panic!("{suspect} is not seen within 100 scans"))
}

#[test]
fn what_changes_without_a_sign_is_seen_within_the_documented_scans() {
    let tree = Tree::new(&(1..40).map(|pid| Fake { pid, ..SLEEP }).collect::<Vec<_>>());
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let policy = policy("", "");
    let whole = scanner.scan(&policy, NOW).stats.syscalls_skipped;
    let steady = scanner.scan(&policy, NOW).stats.syscalls_skipped;
    assert!(steady > whole, "{steady} {whole}");
    // Arguments rewritten in place.
    std::fs::write(tree.path().join("5/cmdline"), "[kworker/0:1]\0").unwrap();
    let scans = scans_until(&mut scanner, &policy, "5 fake-kernel-thread");
    assert!(scans <= known::SCANS_PER_TURN, "{scans}");
    // The file deleted; the second scan confirms it.
    std::fs::remove_file(tree.path().join("6/exe")).unwrap();
    std::os::unix::fs::symlink("/no/such (deleted)", tree.path().join("6/exe")).unwrap();
    let scans = scans_until(&mut scanner, &policy, "6 exe-deleted");
    assert!(scans <= known::SCANS_PER_TURN + 1, "{scans}");
}

#[test]
fn a_changed_name_has_the_arguments_read_at_once() {
    let tree = Tree::new(&[SLEEP]);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    scanner.scan(&Policy::default(), NOW);
    let stat = std::fs::read_to_string(tree.path().join("1/stat")).unwrap();
    std::fs::write(tree.path().join("1/stat"), stat.replace("sleep", "other")).unwrap();
    std::fs::write(tree.path().join("1/cmdline"), "[x]\0").unwrap();
    let seen = describe(&scanner.scan(&Policy::default(), NOW));
    assert_eq!(seen, ["1 fake-kernel-thread=critical"]);
}

#[test]
fn what_waits_for_confirmation_is_read_again_and_not_remembered() {
    let tree = Tree::new(&herd());
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    scanner.scan(&Policy::default(), NOW);
    // Both were in the middle of an upgrade.
    std::fs::remove_file(tree.path().join("4/exe")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/x", tree.path().join("4/exe")).unwrap();
    std::fs::remove_file(tree.path().join("6/fd/0")).unwrap();
    let seen = describe(&scanner.scan(&Policy::default(), NOW));
    let of = |pid: &str| seen.iter().any(|line| line.starts_with(pid));
    assert!(!of("4 ") && !of("6 ") && of("7 "), "{seen:?}");
}

#[test]
fn sockets_come_and_go_with_the_tables_and_are_handed_over_within_bounds() {
    let tree = Tree::new(&[SLEEP, Fake { pid: 2, ..SLEEP }]);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let policy = policy("", "");
    let hold = |pid: u32, inode: u64| {
        let path = tree.path().join(format!("{pid}/fd/9"));
        std::os::unix::fs::symlink(format!("socket:[{inode}]"), path).unwrap();
    };
    scanner.scan(&policy, NOW);
    // A new socket of root, then one of the account: that is seen at once.
    let table = |uid: u32, inode: u64| {
        let line = format!("0: 0100000A:C350 0200000A:0016 01 0:0 00:0 0 {uid} 0 {inode} 1\n");
        for pid in [1, 2] {
            std::fs::write(tree.path().join(format!("{pid}/net/tcp")), &line).unwrap();
        }
    };
    table(54321, 4712);
    hold(1, 4712);
    assert_eq!(
        scans_until(&mut scanner, &policy, "1 network-connection"),
        1
    );
    // Handed over to another process.
    hold(2, 4712);
    let scans = scans_until(&mut scanner, &policy, "2 network-connection");
    assert!(scans <= 32, "{scans}");
    // Closed: the descriptors are still there in this made-up tree.
    table(54321, 4713);
    assert!(describe(&scanner.scan(&policy, NOW)).is_empty());
}

#[test]
fn a_reused_pid_is_another_process_and_inherits_nothing() {
    let tree = Tree::new(&herd());
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let before = scanner.scan(&Policy::default(), NOW);
    // Process 6 ended, and the next one has no socket but is listed as 6.
    for pid in [4, 6] {
        let path = tree.path().join(format!("{pid}/stat"));
        let stat = std::fs::read_to_string(&path).unwrap();
        let start = format!(" {} 614400000", 100 + pid);
        std::fs::write(&path, stat.replace(&start, " 4711 614400000")).unwrap();
    }
    std::fs::remove_file(tree.path().join("6/fd/0")).unwrap();
    let after = scanner.scan(&Policy::default(), NOW);
    assert_eq!(after.alive.difference(&before.alive).count(), 2);
    assert_eq!(before.alive.difference(&after.alive).count(), 2);
    // What the former process 4 showed confirms nothing about this one.
    let seen = describe(&after);
    let of = |pid: &str| seen.iter().any(|line| line.starts_with(pid));
    assert!(!of("4 ") && !of("6 ") && of("9 "), "{seen:?}");
}

#[test]
fn a_socket_that_one_thread_holds_alone_is_found() {
    let tree = Tree::new(&[Fake {
        threads: 2,
        ..SLEEP
    }]);
    let line = "0: 00000000:9859 00000000:0000 0A 0:0 00:0 0 54321 0 73 1\n";
    std::fs::write(tree.path().join("1/net/tcp"), line).unwrap();
    let fds = tree.path().join("1/task/5/fd");
    std::fs::create_dir_all(&fds).unwrap();
    std::os::unix::fs::symlink("socket:[73]", fds.join("3")).unwrap();
    assert_eq!(
        tree.suspects(&Policy::default()),
        ["1 unexpected-listener=high"]
    );
}

#[test]
fn a_program_started_over_another_is_seen_in_the_next_scan() {
    let mut command = Command::new("/bin/bash");
    command.args(["-c", "read go; exec -a '[kworker/0:9]' sleep 600"]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let child = Running::start(command.stdin(Stdio::from(reader)));
    let mut scanner = Scanner::new(Path::new("/proc")).unwrap();
    for _ in 0..2 {
        assert!(suspect_of(scanner.scan(&live_policy(), NOW), child.pid()).is_none());
    }
    std::io::Write::write_all(&mut writer, b"go\n").unwrap();
    let cmdline = format!("/proc/{}/cmdline", child.pid());
    while !std::fs::read(&cmdline).unwrap().starts_with(b"[kworker") {
        std::thread::yield_now();
    }
    // The kernel counts what it used once it leaves its processor.
    std::thread::sleep(Duration::from_millis(100));
    let finding = suspect_of(scanner.scan(&live_policy(), NOW), child.pid()).unwrap();
    let facts = finding.process.unwrap();
    assert!(facts.exe.unwrap().ends_with(b"/sleep"));
}

#[test]
fn a_process_that_does_nothing_is_asked_little_and_still_seen_to_lose_its_file() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let program = dir.path().join("sleep");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut command = Command::new(&program);
    let child = Running::start(command.arg("600").stdin(Stdio::null()));
    let mut scanner = Scanner::new(Path::new("/proc")).unwrap();
    let policy = policy(
        "",
        "[scan]\nmin_age_secs = 0\n[detectors]\nexe-in-volatile-dir = false\n",
    );
    let lost = |scanner: &mut Scanner| {
        let seen = suspect_of(scanner.scan(&policy, NOW), child.pid());
        seen.is_some_and(|f| {
            f.indicators
                .iter()
                .any(|i| i.id == IndicatorId::EXE_DELETED)
        })
    };
    for _ in 0..3 {
        assert!(!lost(&mut scanner));
    }
    std::fs::remove_file(&program).unwrap();
    let scans = (1..=100).find(|_| lost(&mut scanner)).unwrap();
    assert!(scans <= known::SCANS_PER_TURN + 1, "{scans}");
}

#[test]
fn times_follow_the_clock_of_the_boot() {
    let tree = Tree::new(&[Fake {
        comm: "kworker/0:1",
        ..SLEEP
    }]);
    let mut scanner = Scanner::new(&tree.path()).unwrap();
    let outcome = scanner.scan(&Policy::default(), NOW);
    let finding = &outcome.suspects.first().unwrap().finding();
    let facts = finding.process.as_ref().unwrap();
    // 101 ticks after boot, which was 10,000 seconds ago.
    let ticks = ProcRoot::open(&tree.path()).unwrap().ticks_to_millis(101);
    let started_at = NOW.plus_millis(-10_000_000 + i64::try_from(ticks).unwrap());
    assert_eq!(facts.started_at, started_at);
    assert_eq!(facts.age_secs, (10_000_000 - ticks) / 1000);
    // The wall clock is corrected a little: the start time stays.
    let later = scanner.scan(&Policy::default(), NOW.plus_millis(700));
    let later = later.suspects.first().unwrap().finding();
    let facts = later.process.as_ref().unwrap();
    assert_eq!(facts.started_at, started_at);
}

pub(super) fn live_policy() -> Policy {
    policy("", "[scan]\nmin_age_secs = 0\n")
}

pub(super) fn suspect_of(outcome: ScanOutcome, pid: u32) -> Option<Finding> {
    let mut suspects = outcome.suspects.into_iter();
    suspects
        .find(|s| matches!(s.bare.subject, Subject::Process(key) if key.pid == pid))
        .map(|s| s.finding())
}

#[test]
fn evidence_of_a_live_process_is_complete() {
    use sha2::Digest;
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("x\n(deleted)");
    std::fs::copy("/bin/sleep", &program).unwrap();
    let mut command = Command::new(&program);
    command.arg0("[kworker/0:1]").arg("600");
    let child = Running::start(command.current_dir(dir.path()).stdin(Stdio::null()));
    let mut scanner = Scanner::new(Path::new("/proc")).unwrap();
    let outcome = scanner.scan(&live_policy(), NOW);
    let mut finding = suspect_of(outcome, child.pid()).unwrap();
    assert_eq!(
        finding.indicators.first().unwrap().id.as_str(),
        "fake-kernel-thread"
    );
    let mut brief = finding.clone();
    assert!(scanner.gatherer().gather(&mut brief, Depth::Brief));
    let facts = brief.process.as_ref().unwrap();
    assert!(facts.cwd.is_some() && !facts.ancestry.is_empty());
    assert!(facts.files.is_empty() && facts.maps.is_empty() && facts.exe_sha256.is_none());
    assert!(scanner.gatherer().gather(&mut finding, Depth::Whole));
    let facts = finding.process.as_ref().unwrap();
    let content = std::fs::read("/bin/sleep").unwrap();
    assert_eq!(facts.exe_sha256, Some(sha2::Sha256::digest(content).into()));
    assert_eq!(
        facts.cwd.as_deref(),
        Some(
            dir.path()
                .canonicalize()
                .unwrap()
                .as_os_str()
                .as_encoded_bytes()
        )
    );
    assert!(facts.files.contains(&b"/dev/null".to_vec()));
    assert!(
        facts
            .maps
            .iter()
            .any(|line| line.windows(5).any(|part| part == b"x\\012"))
    );
    assert_eq!(facts.ancestry.first().unwrap().pid, std::process::id());
    assert!(facts.parent_start_time > 0);

    let mut late = finding.clone();
    drop(child);
    assert!(!scanner.gatherer().gather(&mut late, Depth::Whole));
    assert_eq!(late, finding);
}

#[test]
fn a_live_listener_is_attributed_to_its_process() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // The descriptor is inherited as standard input.
    let inherited = std::os::fd::OwnedFd::from(listener.try_clone().unwrap());
    let mut command = Command::new("/bin/sleep");
    let child = Running::start(command.arg("600").stdin(Stdio::from(inherited)));
    let root = ProcRoot::open(Path::new("/proc")).unwrap();
    let dir = root.process(child.pid()).unwrap();
    let mut tables = crate::sockets::SocketTables::for_scan(std::sync::Arc::default(), 1);
    let (held, _) = tables.held_by(&dir).unwrap();
    let sockets = tables.resolve(&held);
    let address = listener.local_addr().unwrap();
    assert!(
        sockets.iter().any(|socket| socket.local == Some(address)),
        "{sockets:?}"
    );
}
