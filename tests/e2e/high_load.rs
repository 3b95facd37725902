//! The load watch: the lowest level is 1, so the test keeps three shells busy
//! until the average of a minute has passed it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use procwarden_tests::fleet::{FAST_SETTINGS, Fleet};
use procwarden_tests::wait::eventually;

/// Ends the work with the test.
struct Busy(Vec<std::process::Child>);

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended = child.kill().is_err();
            let _gone = child.wait().is_err();
        }
    }
}

#[test]
fn high_load_is_one_finding_about_the_host_with_its_busiest_processes_and_a_script() {
    let mut fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    assert!(fleet.agent.stop().success());
    let (script, said) = (fleet.path("on-load"), fleet.path("said"));
    let content = format!(
        "#!/bin/sh\necho \"$# $PROCWARDEN_LOAD_1\" >> {}\n",
        said.display()
    );
    fs::write(&script, content).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let config = fleet.path("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}[actions]\non_load = {script:?}\n")).unwrap();
    fleet.agent.start();

    // The average of a minute passes 1 within a minute of two busy processes.
    let spin = || {
        std::process::Command::new("/bin/sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
    };
    let _busy = Busy((0..3).map(|_| spin().unwrap()).collect());
    let settings = fleet.path("load.toml");
    let load = "[load]\nlevel = 1\naverage_minutes = 1\ninterval_secs = 1\n";
    fs::write(&settings, format!("{FAST_SETTINGS}{load}")).unwrap();
    let settings = settings.display().to_string();
    let set = ["policy", "set", "default", &settings, "--comment", "load"];
    let _published = fleet.collector.told(&set);

    let finding = eventually("the finding about the host", || {
        let all = fleet
            .collector
            .json(&["findings", "list", "--indicator", "high-load"])?;
        let acted = all
            .iter()
            .find(|f| f["actions"][0]["result"] == "exit code 0");
        acted
            .cloned()
            .ok_or_else(|| format!("{all:?}\n{}", fleet.agent.log()))
    });
    assert_eq!(finding["kind"], "host", "{finding}");
    assert!(finding.get("user").is_none(), "{finding}");
    let load = &finding["load"];
    assert!(!load["busy"].as_array().unwrap().is_empty(), "{finding}");
    let memory = load["memory"].as_array().unwrap();
    assert!(memory.iter().any(|figure| figure["name"] == "MemTotal"));
    assert!(fs::read_to_string(&said).unwrap().starts_with("0 "));

    let id = finding["id"].as_str().unwrap();
    fleet.wait_for_one_mail(id);
    let mails = fleet.smtp.mails();
    let mail = mails.iter().find(|mail| mail.tells_of(id)).unwrap();
    for needed in [
        "Load averages:",
        "Processes that used most:",
        "MemTotal",
        "Sockets:",
    ] {
        assert!(mail.text.contains(needed), "{needed}: {}", mail.text);
    }
    let shown = fleet.collector.told(&["findings", "show", id]);
    assert!(shown.contains("what the host did about it"), "{shown}");

    assert_it_ends_without_a_level(&fleet, id);
}

fn assert_it_ends_without_a_level(fleet: &Fleet, id: &str) {
    let settings = fleet.path("off.toml");
    fs::write(&settings, FAST_SETTINGS).unwrap();
    let settings = settings.display().to_string();
    let set = ["policy", "set", "default", &settings, "--comment", "off"];
    let _published = fleet.collector.told(&set);
    eventually("its end", || {
        let shown = fleet.collector.json(&["findings", "show", id])?;
        let state = shown.first().map(|f| f["state"].clone());
        match state {
            Some(state) if state == "ended" => Ok(()),
            _ => Err(format!("{state:?}")),
        }
    });
}
