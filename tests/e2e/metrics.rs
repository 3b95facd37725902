//! `/metrics` of a real collector tells what its fleet does.

use std::collections::BTreeSet;
use std::process::Command;

use procwarden_tests::binaries::workspace;
use procwarden_tests::collector::text;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::payload::{Payload, volatile_directory};
use procwarden_tests::prometheus::{Prometheus, has, request, samples};
use procwarden_tests::wait::eventually;

#[test]
fn a_scrape_tells_of_hosts_findings_acknowledgements_and_the_disk() {
    let fleet = Fleet::start().unwrap();
    let directory = volatile_directory().unwrap();
    let payload = Payload::at(&directory.path().join("counted")).start();
    let id = fleet.wait_for_finding(&payload, "exe-in-volatile-dir");
    fleet.wait_for_one_mail(&id);
    fleet.wait_until_applied();
    let address = &fleet.collector.addresses().metrics;
    eventually("the figures to be there", || {
        let samples = samples(address)?;
        for (name, least) in [
            ("procwarden_build_info{version=\"0.1.0\"}", 1.0),
            ("procwarden_hosts{state=\"connected\"}", 1.0),
            ("procwarden_hosts{state=\"silent\"}", 0.0),
            ("procwarden_findings", 1.0),
            ("procwarden_events_received_total", 1.0),
            ("procwarden_ack_latency_seconds_count", 1.0),
            ("procwarden_ingest_held_back_seconds_count", 0.0),
            ("procwarden_ingest_blocked", 0.0),
            ("procwarden_journal_fsync_seconds_count", 1.0),
            ("procwarden_ledger_fsync_seconds_count", 1.0),
            ("procwarden_journal_bytes{journal=\"findings\"}", 200.0),
            ("procwarden_outbox_alerts", 0.0),
            (
                "procwarden_policy_applied_hosts{policy=\"default\",revision=\"1\"}",
                1.0,
            ),
            ("procwarden_ca_certificate_expiry_timestamp_seconds", 1.8e9),
            (
                "procwarden_server_certificate_expiry_timestamp_seconds",
                1.7e9,
            ),
            ("procwarden_spool_dropped_events", 0.0),
        ] {
            match samples.get(name) {
                Some(value) if *value >= least => {}
                other => return Err(format!("{name} is {other:?}, not {least} or more")),
            }
        }
        Ok(())
    });
    let (head, body) = request(address, "GET", "/metrics").unwrap();
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    for (method, path, status) in [("GET", "/", "404"), ("POST", "/metrics", "405")] {
        let (head, _) = request(address, method, path).unwrap();
        assert!(head.contains(status), "{method} {path}: {head}");
    }
}

/// Every name of ours in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_name(c));
    let ours = words.filter(|word| word.starts_with("procwarden_"));
    ours.map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alert_rules_use_metrics_that_exist() {
    let fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    let samples = samples(&fleet.collector.addresses().metrics).unwrap();
    let exported: BTreeSet<String> = samples.keys().flat_map(|key| names_in(key)).collect();
    for file in [
        "grafana/procwarden.json",
        "prometheus/procwarden.rules.yml",
        "prometheus/procwarden.test.yml",
    ] {
        let text = std::fs::read_to_string(workspace().join("deploy").join(file)).unwrap();
        let used = names_in(&text);
        assert!(used.len() > 10, "{file} uses {used:?}");
        for name in used {
            let is_there = exported.contains(&name) || exported.contains(&format!("{name}_bucket"));
            assert!(
                is_there,
                "{file} uses {name}, which is not among {exported:?}"
            );
        }
    }
    let dashboard = workspace().join("deploy/grafana/procwarden.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dashboard).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array();
    assert!(panels.is_some_and(|panels| panels.len() > 10));
}

/// Says what could not be tested.
fn lacks(program: &str) -> bool {
    let lacks = !has(program);
    if lacks {
        #[expect(clippy::print_stderr, reason = "what was not tested is said")]
        {
            eprintln!("skipped: {program} is not installed (Debian: prometheus)");
        }
    }
    lacks
}

#[test]
fn promtool_accepts_the_alert_rules_and_their_tests() {
    if lacks("promtool") {
        return;
    }
    let directory = workspace().join("deploy/prometheus");
    for arguments in [
        ["check", "rules", "procwarden.rules.yml"],
        ["test", "rules", "procwarden.test.yml"],
    ] {
        let mut promtool = Command::new("promtool");
        let output = promtool
            .args(arguments)
            .current_dir(&directory)
            .output()
            .unwrap();
        let (said, failed) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{said}{failed}");
    }
}

#[test]
fn a_real_prometheus_scrapes_the_collector_and_evaluates_the_rules() {
    if lacks("prometheus") {
        return;
    }
    let fleet = Fleet::start().unwrap();
    let prometheus = Prometheus::start(fleet.directory(), &fleet.collector.addresses().metrics);
    eventually("a sample to be stored", || {
        let query = "/api/v1/query?query=procwarden_hosts%7Bstate%3D%22connected%22%7D";
        let answer = prometheus.api(query)?;
        match &answer["data"]["result"][0]["value"][1] {
            value if value == "1" => Ok(()),
            _ => Err(format!("{answer} {:?}", prometheus.api("/api/v1/targets"))),
        }
    });
    eventually("every rule to be evaluated", || {
        let answer = prometheus.api("/api/v1/rules")?;
        let rules = answer["data"]["groups"][0]["rules"].as_array();
        let is_good =
            |rule: &serde_json::Value| rule["health"] == "ok" && rule["state"] == "inactive";
        match rules {
            Some(rules) if rules.len() == 14 && rules.iter().all(is_good) => Ok(()),
            _ => Err(answer.to_string()),
        }
    });
}
