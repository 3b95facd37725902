//! Policies that do not fit together on one host: tokens that would bring them
//! together, and revisions that hosts of a token could not take.

use std::process::Output;

use procwarden_common::limits::RULES_MAX;
use procwarden_tests::collector::{Collector, text};

/// What an operator does, with an outcome that may be bad.
struct Fleet {
    collector: Collector,
    directory: tempfile::TempDir,
}

impl Fleet {
    /// Publishes a policy for the group of the same name.
    fn set(&self, name: &str, rules: usize) -> Output {
        let file = self.directory.path().join(format!("{name}.pignore"));
        let rules: String = (0..rules)
            .map(|n| format!("exe:/opt/{name}/{n}\n"))
            .collect();
        std::fs::write(&file, rules).unwrap();
        let file = file.display().to_string();
        let command = ["policy", "set", name, &file, "--comment", "for a test"];
        self.collector
            .operator(&[&command[..], &["--group", name]].concat())
    }

    fn token(&self) -> Output {
        let command = ["token", "create", "--group", "web", "--group", "db"];
        self.collector.operator(&command)
    }

    /// Ids of the tokens.
    fn tokens(&self) -> Vec<String> {
        let tokens = self.collector.json(&["token", "list"]).unwrap();
        let ids = tokens.iter().map(|token| token["id"].as_str().unwrap());
        ids.map(str::to_owned).collect()
    }

    /// Number of revisions of a policy.
    fn revisions(&self, policy: &str) -> usize {
        self.collector
            .json(&["policy", "log", policy])
            .unwrap()
            .len()
    }
}

#[track_caller]
fn done(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// It ended with exit code 2, nothing on standard output, and these words.
#[track_caller]
fn refused(output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn what_does_not_fit_together_is_refused_for_tokens_and_because_of_them() {
    let directory = tempfile::Builder::new()
        .prefix("procwarden-e2e-")
        .tempdir()
        .unwrap();
    let mut collector = Collector::init(directory.path(), None);
    collector.start();
    let fleet = Fleet {
        collector,
        directory,
    };
    let more_than_half = RULES_MAX / 2 + 1;
    done(&fleet.set("web", more_than_half));
    done(&fleet.set("db", more_than_half));
    let together = "would get the policies db, web together";
    let limit = RULES_MAX.to_string();
    refused(&fleet.token(), &["cannot create a token", together, &limit]);
    assert_eq!(fleet.tokens().len(), 0, "a token was made");

    done(&fleet.set("db", 1));
    done(&fleet.token());
    let tokens = fleet.tokens();
    let [id] = tokens.as_slice() else {
        panic!("{tokens:?}")
    };
    let revoke = format!("procwarden token revoke {id}");
    refused(&fleet.set("db", more_than_half), &[&revoke, together]);
    assert_eq!(fleet.revisions("db"), 2, "a refused one was published");

    let _revoked = fleet.collector.told(&["token", "revoke", id]);
    done(&fleet.set("db", more_than_half));
    assert_eq!(fleet.revisions("db"), 3);
}
