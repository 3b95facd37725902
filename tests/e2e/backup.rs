//! A copy of the store, taken while the collector serves or after it stopped,
//! gives the same answers in another place.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use procwarden_tests::collector::{Collector, text};
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, Running, volatile_directory};
use procwarden_tests::wait::eventually;
use serde_json::Value;

/// Nobody else's: a mail is bounded, and what other tests run could fill it.
const ACCOUNT: u32 = 61_433;

fn export(collector: &Collector, format: &str, to: &Path, more: &[&str]) -> Output {
    let mut command = collector.command(&["store", "export", "--format", format]);
    command.arg("--to").arg(to).args(more).output().unwrap()
}

fn restore(collector: &Collector, from: &Path, data_dir: &Path) -> Output {
    // The harness adds `--config`, which a restore does not take.
    let program = collector.command(&[]).get_program().to_owned();
    let mut command = std::process::Command::new(program);
    command.args(["store", "restore", "--from"]).arg(from);
    command.arg("--data-dir").arg(data_dir).output().unwrap()
}

#[track_caller]
fn must_succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A collector on what was restored from a copy.
fn restored(original: &Collector, from: &Path, directory: &Path) -> Collector {
    std::fs::create_dir(directory).unwrap();
    let collector = Collector::existing(directory);
    must_succeed(&restore(original, from, &collector.data_dir()));
    collector
}

/// What an operator is told, but for what depends on the moment.
fn answers(collector: &Collector) -> Result<Vec<Vec<Value>>, String> {
    let mut hosts = collector.json(&["hosts", "list"])?;
    for host in &mut hosts {
        let host = host.as_object_mut().unwrap();
        host.retain(|key, _| ["id", "name", "groups", "enrolled_at"].contains(&key.as_str()));
    }
    let list = ["findings", "list", "--limit", "100000"];
    Ok(vec![
        collector.json(&list)?,
        hosts,
        collector.json(&["policy", "list"])?,
        collector.json(&["policy", "log", "default"])?,
        collector.json(&["audit", "--limit", "100000"])?,
        collector.json(&["token", "list"])?,
    ])
}

fn lines(file: PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let line = |line| serde_json::from_str(line).unwrap();
    text.lines().map(line).collect()
}

#[test]
fn a_copy_taken_while_findings_arrive_restores_to_what_was_there() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("copied"));
    let first = payload.start();
    let id = fleet.wait_for_finding(&first, "exe-in-volatile-dir");
    fleet.wait_for_one_mail(&id);
    let herd = std::thread::scope(|scope| {
        let herd = scope.spawn(|| {
            let start = |_| {
                std::thread::sleep(Duration::from_millis(100));
                payload.start()
            };
            (0..40).map(start).collect::<Vec<Running>>()
        });
        for number in 0..3 {
            let copy = fleet.path(&format!("copy-{number}"));
            must_succeed(&export(
                &fleet.collector,
                "native",
                &copy,
                &["--with-ca-key"],
            ));
        }
        herd.join().unwrap()
    });
    for running in &herd {
        let _id = fleet.wait_for_finding(running, "exe-in-volatile-dir");
    }
    for number in 0..3 {
        let copy = fleet.path(&format!("copy-{number}"));
        let mut other = restored(
            &fleet.collector,
            &copy,
            &fleet.path(&format!("at-{number}")),
        );
        other.start();
        let found = eventually("the first finding in the copy", || {
            let found = other.findings_of(first.pid())?;
            match found.len() {
                1 => Ok(found),
                other => Err(format!("{other} findings")),
            }
        });
        assert_eq!(found[0]["id"], id);
        let listed = other
            .json(&["findings", "list", "--limit", "100000"])
            .unwrap();
        let mut ids: Vec<&Value> = listed.iter().map(|finding| &finding["id"]).collect();
        let before = ids.len();
        ids.sort_by_key(|id| id.to_string());
        ids.dedup();
        assert_eq!(ids.len(), before, "nothing is there twice");
        assert!(other.stop().success(), "{}", other.log());
    }
}

#[test]
fn a_restored_collector_gives_the_same_answers_and_its_agent_goes_on() {
    let mut fleet = Fleet::start_for(ACCOUNT).unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("moved"));
    let payload = payload.account(ACCOUNT).start();
    let id = eventually("the finding", || {
        let found = fleet.collector.findings_of(payload.pid())?;
        let id = found.first().and_then(|finding| finding["id"].as_str());
        id.map(str::to_owned).ok_or_else(|| fleet.agent.log())
    });
    fleet.wait_for_one_mail(&id);
    let rules = format!("puser:(?!{ACCOUNT}$).*\nexe:/opt/backup/agent\n");
    fleet.publish_rules(&rules);
    assert!(fleet.agent.stop().success());
    // Mails about other processes of this machine may be on their way.
    let before = eventually("nothing more to happen", || {
        let once = answers(&fleet.collector)?;
        std::thread::sleep(Duration::from_secs(3));
        match answers(&fleet.collector)? == once {
            true => Ok(once),
            false => Err("answers change".to_owned()),
        }
    });
    let (native, jsonl, stopped) = (fleet.path("n"), fleet.path("j"), fleet.path("s"));
    let said = must_succeed(&export(
        &fleet.collector,
        "native",
        &native,
        &["--with-ca-key"],
    ));
    assert!(said.contains("from the collector that serves"), "{said}");
    must_succeed(&export(&fleet.collector, "jsonl", &jsonl, &[]));
    assert!(fleet.collector.stop().success());
    let said = must_succeed(&export(
        &fleet.collector,
        "native",
        &stopped,
        &["--with-ca-key"],
    ));
    assert!(said.contains("no collector serves"), "{said}");

    for (copy, place) in [(&native, "from-native"), (&stopped, "from-stopped")] {
        let mut other = restored(&fleet.collector, copy, &fleet.path(place));
        other.start();
        eventually("the same answers", || {
            let after = answers(&other)?;
            if after == before {
                return Ok(());
            }
            Err(format!("{after:#?}\ninstead of\n{before:#?}"))
        });
        assert!(other.stop().success(), "{}", other.log());
    }
    assert_eq!(lines(jsonl.join("findings.jsonl")), before[0]);
    assert_eq!(lines(jsonl.join("audit.jsonl")), before[4]);
    let hosts = lines(jsonl.join("hosts.jsonl"));
    assert_eq!(
        (&hosts[0]["id"], hosts.len()),
        (&before[1][0]["id"], before[1].len())
    );
    let policies = lines(jsonl.join("policies.jsonl"));
    assert_eq!(policies.len(), before[3].len(), "every revision");
    let content = policies.last().unwrap()["files"][0]["content"].as_str();
    assert_eq!(content, Some(&rules[..]));
}

#[test]
fn a_copy_that_is_not_complete_or_would_overwrite_something_is_refused() {
    let fleet = Fleet::start().unwrap();
    let collector = &fleet.collector;
    let refused = |output: Output, why: &str| {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{why:?} is missing in {said}");
    };
    let copy = fleet.path("copy");
    must_succeed(&export(collector, "native", &copy, &[]));
    assert!(
        !copy.join("ca/ca.key").exists(),
        "the key stays where it is"
    );
    refused(export(collector, "native", &copy, &[]), "is not empty");
    refused(
        restore(collector, &copy, &collector.data_dir()),
        "is not empty",
    );

    let said = must_succeed(&restore(collector, &copy, &fleet.path("keyless")));
    assert!(said.contains("ca/ca.key"), "{said}");

    let jsonl = fleet.path("jsonl");
    must_succeed(&export(collector, "jsonl", &jsonl, &[]));
    refused(restore(collector, &jsonl, &fleet.path("a")), "only native");

    let ledger = std::fs::read_dir(copy.join("ledger")).unwrap();
    let segment = ledger.map(|entry| entry.unwrap().path()).next().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    refused(
        restore(collector, &copy, &fleet.path("b")),
        "not what was copied",
    );
    assert!(
        !fleet.path("b").join("ca/ca.pem").exists(),
        "no collector starts on it"
    );

    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    refused(
        restore(collector, &copy, &fleet.path("c")),
        "no complete copy",
    );
}
