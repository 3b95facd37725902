//! SIGHUP: reads the file again and takes over what it says.
//!
//! Promises: a file with a mistake changes nothing; what cannot change while
//! the agent runs is named in the log, key by key.

use std::time::Instant;

use super::scanning::Wake;
use super::{Controls, load_config};
use crate::cli::CommonArgs;
use crate::config::Config;

impl Controls {
    /// Reads the file again. `runs` is what the agent was started with.
    pub(super) fn reload(&self, args: &CommonArgs, runs: &Config) {
        let config = match load_config(args) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("The configuration is wrong and was not read again:\n{error:#}");
                return;
            }
        };
        for setting in config.waits_for_a_start(runs) {
            tracing::warn!(
                setting,
                "A change of this takes effect at the next start only."
            );
        }
        self.take_over(config, Instant::now());
        tracing::info!("The configuration was read again.");
    }

    fn take_over(&self, config: Config, now: Instant) {
        if let Some(collector) = config.collector {
            self.address.send_if_modified(|address| {
                let is_other = *address != collector;
                *address = collector;
                is_other
            });
        }
        self.spool.set_max_bytes(config.spool_max_bytes);
        self.lookout.set_share(config.cpu_percent, now);
        self.cpu_percent.send_replace(config.cpu_percent);
        self.scanner.wake(Wake::PaceChanged);
        // Turned also to where it stands: where events broke, a reload is the
        // way to try them again.
        self.events.turn(config.events);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use procwarden_common::clock::UnixMillis;
    use tokio::sync::watch;

    use super::*;
    use crate::address::Address;
    use crate::events::{Lookout, Mode, Switch};
    use crate::health::Board;
    use crate::identity::Facts;
    use crate::run::open_spool;
    use crate::run::scanning::{Wakes, waker};
    use crate::status::{StatusFile, Who};

    fn controls(config: &Config) -> (Controls, Wakes) {
        let address: Address = "c.example:7443".parse().unwrap();
        let facts = Facts {
            host_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            fleet_id: "00000000-0000-0000-0000-000000000002".parse().unwrap(),
            collector: address.clone(),
        };
        let who = Who {
            facts,
            started_at: UnixMillis(0),
        };
        let (address, changes) = watch::channel(address);
        let board = Arc::new(Board::default());
        let (scanner, wakes) = waker();
        let controls = Controls {
            address,
            spool: open_spool(config, &board).unwrap(),
            scanner,
            lookout: Arc::new(Lookout::new(config.cpu_percent, Instant::now())),
            events: Arc::new(Switch::new(config.events).unwrap()),
            cpu_percent: watch::Sender::new(config.cpu_percent),
            status: Arc::new(StatusFile::new(&config.state_dir, who, changes)),
            board,
        };
        (controls, wakes)
    }

    /// An agent that runs with the first text and reloads the others.
    fn reloads(dir: &Path, texts: &[&str]) -> (Controls, Wakes) {
        let file = dir.join("agent.toml");
        let args = CommonArgs {
            config: Some(file.clone()),
            state_dir: Some(dir.to_owned()),
        };
        std::fs::write(&file, texts[0]).unwrap();
        let runs = load_config(&args).unwrap();
        let (controls, wakes) = controls(&runs);
        for text in &texts[1..] {
            std::fs::write(&file, text).unwrap();
            controls.reload(&args, &runs);
        }
        (controls, wakes)
    }

    #[test]
    fn a_reload_changes_the_share_and_switches_events() {
        let dir = tempfile::tempdir().unwrap();
        let text = "collector = 'd.example:7443'\n[events]\nmode = 'off'\n[limits]\ncpu = 25\n";
        let (controls, wakes) = reloads(dir.path(), &["", text]);
        assert_eq!(controls.events.mode(), Mode::Off);
        assert_eq!(*controls.cpu_percent.borrow(), 25);
        assert_eq!(controls.address.borrow().to_string(), "d.example:7443");
        assert_eq!(wakes.recv_timeout(Duration::ZERO), Ok(Wake::PaceChanged));
        // A second, less what the first bucket held, at an eighth of a processor.
        let now = Instant::now();
        controls.lookout.mark(7, now);
        controls.lookout.looked(1, 1_000_000, now);
        let wait = controls.lookout.next_look(now).unwrap();
        let around = Duration::from_secs(5)..Duration::from_secs(9);
        assert!(around.contains(&wait), "{wait:?}");
    }

    #[test]
    fn what_the_file_no_longer_says_is_the_default_again() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[events]\nmode = 'off'\n[limits]\ncpu = 25\n";
        let (controls, _wakes) = reloads(dir.path(), &[text, ""]);
        assert_eq!(controls.events.mode(), Mode::Auto);
        assert_eq!(
            *controls.cpu_percent.borrow(),
            Config::default().cpu_percent
        );
    }

    #[test]
    fn a_file_with_a_mistake_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let text = "[limits]\ncpu = 25\n[events]\nmode = 'on'\n";
        let (controls, wakes) = reloads(dir.path(), &["", text]);
        assert_eq!(*controls.cpu_percent.borrow(), 10);
        assert!(wakes.recv_timeout(Duration::ZERO).is_err());
    }
}
