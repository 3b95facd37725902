//! The index may vanish or rot between two starts: the journal is the truth,
//! and the answers stay the same.

use std::fs;
use std::path::Path;

use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};
use serde_json::Value;

/// What a collector answers after `damage` to its index between two starts.
fn answers_are_the_same_after(damage: impl Fn(&Path)) {
    let mut fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("indexed")).start();
    let id = fleet.wait_for_finding(&payload, "exe-in-volatile-dir");
    fleet.wait_for_one_mail(&id);
    assert!(fleet.agent.stop().success(), "{}", fleet.agent.log());
    let before = answers(&fleet, &id);
    assert!(
        fleet.collector.stop().success(),
        "{}",
        fleet.collector.log()
    );

    let index = fleet.collector.data_dir().join("index");
    assert!(!files(&index).is_empty(), "nothing to damage");
    damage(&index);

    fleet.collector.start();
    assert_eq!(answers(&fleet, &id), before, "{}", fleet.collector.log());
    assert_eq!(fleet.mails_about(&id), 1, "nothing is mailed again");
}

fn answers(fleet: &Fleet, id: &str) -> (Vec<Value>, Vec<Value>) {
    let list = fleet
        .collector
        .json(&["findings", "list", "--limit", "100000"])
        .unwrap();
    let show = fleet.collector.json(&["findings", "show", id]).unwrap();
    assert!(!list.is_empty());
    assert!(!show.is_empty());
    (list, show)
}

/// Every regular file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

#[test]
fn a_deleted_index_is_rebuilt() {
    answers_are_the_same_after(|index| fs::remove_dir_all(index).unwrap());
}

#[test]
fn an_index_overwritten_with_garbage_is_rebuilt() {
    answers_are_the_same_after(|index| {
        for file in files(index) {
            let length = fs::metadata(&file).unwrap().len();
            let garbage: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            fs::write(&file, garbage).unwrap();
        }
    });
}

#[test]
fn an_index_cut_short_is_rebuilt() {
    answers_are_the_same_after(|index| {
        for file in files(index) {
            let content = fs::read(&file).unwrap();
            fs::write(&file, &content[..content.len() / 3]).unwrap();
        }
    });
}
