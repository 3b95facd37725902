//! The service manager's side: what the programs tell it, and whether it
//! understands the shipped units.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use procwarden_tests::binaries::{binary, workspace};
use procwarden_tests::child::Guarded;
use procwarden_tests::fleet::Fleet;
use procwarden_tests::wait::eventually;

/// A service manager's end of the socket that programs notify.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let timeout = Some(Duration::from_millis(100));
        socket.set_read_timeout(timeout).unwrap();
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    /// Waits until a line was heard that often.
    fn hears(&mut self, line: &str, times: usize) {
        eventually(&format!("{line} for {times} times"), || {
            self.listen();
            let count = self.heard.iter().filter(|heard| *heard == line).count();
            if count >= times {
                Ok(())
            } else {
                Err(format!("{:?}", self.heard))
            }
        });
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    self.heard.extend(text.lines().map(str::to_owned));
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
                Err(e) => panic!("{e}"),
            }
        }
    }
}

/// Starts a program as systemd would, and sees it through a whole life.
fn lives_as_a_service(command: &mut Command, directory: &Path, name: &str) {
    let socket = directory.join(format!("{name}.notify"));
    let mut manager = Manager::at(&socket);
    command
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "1500000")
        .stdout(Stdio::null());
    let program = Guarded::start(command, &directory.join(format!("{name}.log")));
    manager.hears("READY=1", 1);
    manager.hears("WATCHDOG=1", 3);
    assert!(!manager.heard.contains(&"STOPPING=1".to_owned()));
    assert!(program.stop().success());
    manager.hears("STOPPING=1", 1);
    let ready = manager.heard.iter().position(|line| line == "READY=1");
    let watchdog = manager.heard.iter().position(|line| line == "WATCHDOG=1");
    assert!(ready < watchdog, "{:?}", manager.heard);
}

#[test]
fn both_programs_tell_systemd_that_they_are_ready_live_and_stop() {
    let mut fleet = Fleet::start().unwrap();
    fleet.wait_until_applied();
    assert!(fleet.agent.stop().success());
    let mut agent = fleet.agent.command("run");
    lives_as_a_service(&mut agent, fleet.directory(), "agent");
    assert!(fleet.collector.stop().success());
    let mut collector = fleet.collector.command(&["serve"]);
    lives_as_a_service(&mut collector, fleet.directory(), "collector");
}

/// systemd's own judgement: 0 is perfect, 100 is wide open.
const EXPOSURE_MAX: &str = "40";

#[test]
fn systemd_understands_the_shipped_units_and_finds_them_closed_enough() {
    let analyze = |arguments: &[&str], unit: &Path| {
        let output = Command::new("systemd-analyze")
            .args(arguments)
            .arg(unit)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{unit:?}: {said}");
        said
    };
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: systemd-analyze is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for program in ["procwarden-agent", "procwarden-collector"] {
        let name = format!("{program}.service");
        let shipped = workspace().join("deploy/systemd").join(&name);
        let text = std::fs::read_to_string(shipped).unwrap();
        // It looks whether the program is there.
        let installed = format!("/usr/bin/{program}");
        let built = binary(program).display().to_string();
        let unit = directory.path().join(&name);
        std::fs::write(&unit, text.replace(&installed, &built)).unwrap();
        let said = analyze(&["verify", "--man=no"], &unit);
        assert!(!said.contains(&name), "{said}");
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        analyze(&["security", "--offline=true", &threshold], &unit);
    }
}
