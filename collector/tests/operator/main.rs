//! The operator's command as a program: real binary, a collector that answers
//! from a table, a real Unix socket. What is checked is what scripts rely on:
//! exit codes, what is on standard output, and what is not.

#![expect(
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

mod fake;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fake::FakeCollector;

struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("ASCII"),
            stderr: String::from_utf8(output.stderr).expect("ASCII"),
        }
    }
}

fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_procwarden"));
    command
        .env_remove("PROCWARDEN_COLLECTOR")
        .arg(format!("--collector=unix:{}", socket.display()))
        .args(line.split_whitespace());
    command
}

fn run(socket: &Path, line: &str) -> Answer {
    let answer: Answer = command(socket, line)
        .output()
        .expect("the command runs")
        .into();
    let all = format!("{}{}", answer.stdout, answer.stderr);
    assert!(!all.contains("panicked"), "{line}: {all}");
    let harmless = |byte| matches!(byte, b'\n' | 0x20..=0x7e);
    assert!(
        all.bytes().all(harmless),
        "{line} is harmful to a terminal: {all:?}"
    );
    answer
}

fn objects(text: &str) -> Vec<serde_json::Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("one object per line"))
        .collect()
}

fn policy_file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("written");
    path
}

#[test]
fn an_objection_of_the_collector_is_a_negative_answer() {
    let fake = FakeCollector::start();
    let shown = run(fake.socket(), "ignore abcdef --reason why");
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(
        shown.stdout.contains("--yes --force would"),
        "{}",
        shown.stdout
    );
    let refused = run(fake.socket(), "ignore abcdef --reason why --yes");
    assert_eq!(refused.code, 2);
    let why = "anybody writes there; nothing was published";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
}

#[test]
fn learning_is_listed_ended_and_comes_to_a_file() {
    let fake = FakeCollector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("proposed.pignore");
    let to_file = format!("policy learn web --propose {}", file.display());
    for (line, code, stdout, stderr) in [
        ("policy learn web --for 7d", 2, "", "it is learned from"),
        ("policy learn list", 0, "learning", ""),
        ("policy learn show web", 0, "2026-11-23T09:00:00Z", ""),
        ("policy learn show db", 1, "", "never learned from"),
        ("policy learn end web", 0, "web", ""),
        (
            "policy learn web --propose",
            0,
            "exe:/usr/sbin/x\n",
            "2 program(s) to look at",
        ),
        (&to_file, 0, "", "more may come"),
        (&to_file, 1, "", "name a new file"),
    ] {
        let answer = run(fake.socket(), line);
        assert_eq!(answer.code, code, "{line}: {}", answer.stderr);
        assert!(answer.stdout.contains(stdout), "{line}: {}", answer.stdout);
        assert!(answer.stderr.contains(stderr), "{line}: {}", answer.stderr);
    }
    let written = std::fs::read_to_string(&file).expect("a file");
    assert!(written.ends_with("exe:/usr/sbin/x\n"));
}

#[test]
fn a_roll_out_that_stopped_is_a_negative_answer() {
    let fake = FakeCollector::start();
    for (line, code, stdout, stderr) in [
        ("policy rollout web 3", 0, "running", ""),
        ("policy rollout status web", 0, "web\\1b[2J refuses", ""),
        (
            "policy rollout status stopped",
            2,
            "reverted",
            "stopped by itself",
        ),
        ("policy rollout abort web", 2, "", "it is finished"),
        (
            "policy rollout status stopped --json",
            2,
            "\"reverted\"",
            "",
        ),
    ] {
        let answer = run(fake.socket(), line);
        assert_eq!(answer.code, code, "{line}: {}", answer.stderr);
        assert!(answer.stdout.contains(stdout), "{line}: {}", answer.stdout);
        assert!(answer.stderr.contains(stderr), "{line}: {}", answer.stderr);
    }
}

#[test]
fn every_command_ends_with_the_exit_code_of_the_contract() {
    let fake = FakeCollector::start();
    for (line, code, stdout, stderr) in [
        ("status", 0, "9.9.9", ""),
        (
            "token create",
            0,
            "pwt1.SECRET\n",
            "until 2026-11-23T09:00:00Z",
        ),
        ("token list", 0, "ID", ""),
        ("hosts list", 0, "web\\1b[2J", ""),
        ("hosts show web", 0, "web r3 (pending)", ""),
        ("hosts set web --group a b", 0, "a, b", ""),
        (
            "hosts revoke web",
            1,
            "",
            "run as root or as a member of the group",
        ),
        ("hosts scan web", 1, "", "install the same version"),
        ("findings list", 0, "exe-deleted", ""),
        ("findings list --limit 3", 0, "exe-deleted", "raise --limit"),
        ("findings show abcdef", 0, "Its executable was deleted", ""),
        (
            "findings show 000000",
            1,
            "",
            "cannot show the finding: no finding begins with 000000",
        ),
        ("findings watch", 1, "exe-deleted", "ended the watch"),
        ("policy show web", 0, "user:bob", ""),
        ("policy show web", 0, "never matched", ""),
        ("policy show web", 0, "counted on 2 of 3 host(s)", ""),
        ("policy preview web /dev/null", 0, "hides 1 finding(s)", ""),
        ("policy list", 0, "NAME", ""),
        ("policy log web", 0, "REVISION", ""),
        ("policy diff web 1 2", 0, "have the same content", ""),
        ("policy rollback web 1", 0, "the content of revision 1", ""),
        ("policy rollback web 2", 0, "nothing to do", ""),
        ("policy assign web --group all", 0, "web: all", ""),
        ("policy status done", 0, "applied", ""),
        (
            "policy status waiting",
            2,
            "pending",
            "0 of 1 hosts run what they should",
        ),
        ("alerts test --to root@example.net", 0, "250 queued", ""),
        ("alerts list", 0, "QUEUED", ""),
        ("audit", 0, "enrolled", ""),
        ("audit --limit 1", 0, "r3\\1b[2J", "more than 1 decisions"),
        ("nonsense", 64, "", "nonsense"),
        ("--help", 0, "Exit codes", ""),
        (
            "policy check /nonexistent/x",
            1,
            "",
            "cannot read /nonexistent/x",
        ),
    ] {
        let answer = run(fake.socket(), line);
        let all = format!("{line}\n{}\n{}", answer.stdout, answer.stderr);
        assert_eq!(answer.code, code, "{all}");
        assert!(answer.stdout.contains(stdout), "{all}");
        assert!(answer.stderr.contains(stderr), "{all}");
    }
}

#[test]
fn json_is_one_object_per_line_and_nothing_else() {
    let fake = FakeCollector::start();
    for (line, count) in [
        ("--json status", 1),
        ("--json token create", 1),
        ("--json hosts list", 1),
        ("--json hosts show web", 1),
        ("--json findings list", 5),
        ("--json findings list --limit 3", 3),
        ("--json findings watch", 1),
        ("--json policy show web", 1),
        ("--json policy list", 1),
        ("--json policy status waiting", 1),
        ("--json alerts test --to root@example.net", 1),
    ] {
        let answer = run(fake.socket(), line);
        assert_eq!(
            objects(&answer.stdout).len(),
            count,
            "{line}: {}",
            answer.stdout
        );
    }
    let host = &objects(&run(fake.socket(), "--json hosts list").stdout)[0];
    assert_eq!(host["name"], "web\\1b[2J");
    assert_eq!(host["policy"]["current"], false);
    let finding = &objects(&run(fake.socket(), "--json findings list").stdout)[0];
    assert_eq!(finding["exe"], "/tmp/\\9bx (deleted)");
    assert_eq!(finding["state"], "open");
}

#[test]
fn a_token_for_policies_that_do_not_fit_together_is_a_negative_answer() {
    let fake = FakeCollector::start();
    let refused = run(fake.socket(), "token create --group bad");
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    let why = "cannot create a token: agents refuse that: too many rules";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
}

#[test]
fn what_is_doubtful_about_a_change_is_said_beside_its_answer() {
    let fake = FakeCollector::start();
    let remark = "fleet: warning: web1\\1b: they do not fit together";
    for line in [
        "token create --group web",
        "hosts set web --group a",
        "policy rollout web 3",
        "ignore feed01 --reason why --yes",
    ] {
        let told = run(fake.socket(), line);
        assert_eq!(told.code, 0, "{line}: {}", told.stderr);
        assert!(told.stderr.contains(remark), "{line}: {}", told.stderr);
        assert!(!told.stdout.contains("fit together"), "{line}");
    }
    for line in [
        "--json hosts set web --group a",
        "--json policy rollout web 3",
    ] {
        let told = run(fake.socket(), line);
        assert!(told.stderr.contains(remark), "{line}: {}", told.stderr);
        assert!(!told.stdout.contains("fit together"), "{line}");
    }
}

#[test]
fn the_token_is_alone_on_standard_output() {
    let fake = FakeCollector::start();
    assert_eq!(
        run(fake.socket(), "token create --group web").stdout,
        "pwt1.SECRET\n"
    );
}

#[test]
fn a_policy_with_errors_is_not_sent() {
    let fake = FakeCollector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let bad = policy_file(dir.path(), "bad.pignore", "user:bob\npexe:(\nnonsense\n");
    let answer = run(
        fake.socket(),
        &format!("policy set web {} --comment why", bad.display()),
    );
    assert_eq!(answer.code, 2, "{}", answer.stderr);
    assert!(answer.stderr.contains("bad.pignore:2"), "{}", answer.stderr);
    assert_eq!(fake.published(), []);
    let answer = run(
        Path::new("/nonexistent"),
        &format!("policy check {}", bad.display()),
    );
    assert_eq!(
        answer.code, 2,
        "a check needs no collector: {}",
        answer.stderr
    );
}

#[test]
fn a_good_policy_is_published_and_one_without_a_group_is_remarked() {
    let fake = FakeCollector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let good = policy_file(dir.path(), "good.pignore", "user:bob\n");
    let settings = policy_file(dir.path(), "s.toml", "[scan]\nmin_age_secs = 30\n");
    let line = format!("policy set web {} --comment why", good.display());
    let answer = run(fake.socket(), &line);
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(
        answer
            .stderr
            .contains("procwarden policy assign web --group all"),
        "{}",
        answer.stderr
    );
    let answer = run(fake.socket(), &format!("{line} --group all"));
    assert!(!answer.stderr.contains("no group"), "{}", answer.stderr);
    let answer = run(
        fake.socket(),
        &format!("--json policy set web {} --comment x", settings.display()),
    );
    assert_eq!(objects(&answer.stdout)[0]["published"], true);
    let published = fake.published();
    let seen: Vec<_> = published
        .iter()
        .map(|request| (request.files.len(), request.settings.is_some()))
        .collect();
    assert_eq!(seen, [(1, false), (1, false), (0, true)]);
    assert_eq!(published[0].files[0].path, "good.pignore");
    assert_eq!(published[1].groups, ["all"], "in the same request");
}

#[test]
fn every_object_of_an_import_says_its_kind() {
    let fake = FakeCollector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let pignore = policy_file(dir.path(), "csf.pignore", "exe:/usr/bin/perl\n");
    let conf = policy_file(dir.path(), "csf.conf", "PT_LIMIT = \"90\"\n");
    let line = format!(
        "--json import csf --pignore {} --conf {} --policy web",
        pignore.display(),
        conf.display()
    );
    let answer = run(fake.socket(), &line);
    let kinds: Vec<_> = objects(&answer.stdout)
        .iter()
        .map(|object| object["kind"].as_str().unwrap_or("none").to_owned())
        .collect();
    assert_eq!(kinds.last().map(String::as_str), Some("published"));
    assert!(!kinds.contains(&"none".to_owned()), "{kinds:?}");
}

#[test]
fn what_the_collector_refuses_to_publish_is_a_negative_answer() {
    let fake = FakeCollector::start();
    let dir = tempfile::tempdir().expect("a directory");
    let good = policy_file(dir.path(), "good.pignore", "user:bob\n");
    for (name, stderr) in [
        ("remarks", "a.pignore:1: error: too much"),
        ("refusal", "the fleet says no"),
    ] {
        let answer = run(
            fake.socket(),
            &format!("policy set {name} {} --comment why", good.display()),
        );
        assert_eq!(answer.code, 2, "{}", answer.stderr);
        assert!(answer.stderr.contains(stderr), "{}", answer.stderr);
        assert_eq!(answer.stdout, "");
    }
}

#[test]
fn a_collector_that_is_not_there_is_named() {
    let answer = run(Path::new("/nonexistent/admin.sock"), "status");
    assert_eq!(answer.code, 1);
    assert!(
        answer
            .stderr
            .contains("there is no socket /nonexistent/admin.sock"),
        "{}",
        answer.stderr
    );
    let output = Command::new(env!("CARGO_BIN_EXE_procwarden"))
        .env("PROCWARDEN_COLLECTOR", "https://collector:7443")
        .arg("status")
        .output();
    let answer = Answer::from(output.expect("the command runs"));
    assert_eq!(answer.code, 64);
    assert!(answer.stderr.contains("ssh"), "{}", answer.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let fake = FakeCollector::start();
    for line in [
        "findings list",
        "findings list --json",
        "findings watch",
        "status",
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(fake.socket(), line).stdout(writer).output();
        let answer = Answer::from(output.expect("the command runs"));
        assert_eq!(answer.code, 0, "{line}: {}", answer.stderr);
        assert!(
            !answer.stderr.contains("procwarden:"),
            "{line}: {}",
            answer.stderr
        );
    }
}
