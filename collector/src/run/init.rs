//! `init`: makes a new fleet, and a configuration to start from.
//!
//! Promises: never overwrites anything; says what to do next.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use procwarden_common::clock::UnixMillis;
use procwarden_common::printable::printable;

use super::{Failure, say};
use crate::ca::{Authority, AuthorityError};
use crate::cli::InitOptions;

/// The configuration that operators start from.
const TEMPLATE: &str = include_str!("../../../deploy/config/collector.toml");

/// Makes the data directory with the fleet's identity.
pub(super) fn init(options: &InitOptions, now: UnixMillis) -> Result<(), Failure> {
    let data_dir = std::path::absolute(&options.data_dir)
        .map_err(|error| Failure::Usage(format!("--data-dir: {error}")))?;
    let config_text = config_text(&data_dir)?;
    let authority =
        Authority::init(&data_dir, &options.names, now).map_err(|error| match error {
            AuthorityError::Exists { .. }
            | AuthorityError::NoName
            | AuthorityError::InvalidName { .. } => Failure::Usage(error.to_string()),
            other => Failure::Runtime(other.into()),
        })?;
    say(&format!("data directory  {}", data_dir.display()));
    say(&format!("fleet id        {}", authority.fleet_id()));
    say(&format!(
        "ca sha256       {}",
        data_encoding::HEXLOWER.encode(&authority.ca_sha256())
    ));
    let config = options.config.as_deref();
    if let Some(file) = config {
        write_config(file, &config_text)?;
    }
    say_next(&data_dir, config);
    Ok(())
}

/// The template with this data directory.
fn config_text(data_dir: &Path) -> Result<String, Failure> {
    let plain = data_dir
        .to_str()
        .filter(|text| !text.contains(char::is_control));
    let Some(plain) = plain else {
        let shown = printable(data_dir.as_os_str().as_encoded_bytes());
        return Err(Failure::Usage(format!(
            "--data-dir {shown}: use a path in UTF-8 without control characters"
        )));
    };
    let quoted = format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""));
    let line = |line: &str| {
        if line.starts_with("data_dir = ") {
            format!("data_dir = {quoted}\n")
        } else {
            format!("{line}\n")
        }
    };
    Ok(TEMPLATE.lines().map(line).collect())
}

fn write_config(file: &Path, text: &str) -> Result<(), Failure> {
    // On a fresh machine nobody has made /etc/procwarden.
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(file);
    match opened {
        Ok(mut opened) => {
            let written = opened
                .write_all(text.as_bytes())
                .and_then(|()| opened.sync_all());
            written.with_context(|| format!("cannot write {}", file.display()))?;
            say(&format!("configuration   {}", file.display()));
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            say(&format!(
                "configuration   {} (was there, left as it is)",
                file.display()
            ));
            Ok(())
        }
        Err(error) => {
            let context = format!("cannot write {}", file.display());
            Err(Failure::Runtime(anyhow::Error::new(error).context(context)))
        }
    }
}

fn say_next(data_dir: &Path, config: Option<&Path>) {
    say("\nnext:");
    let file = match config {
        Some(file) => std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
        None => {
            say(&format!(
                "  write a configuration that has data_dir = {:?}",
                data_dir.display().to_string()
            ));
            PathBuf::from("FILE")
        }
    };
    say(&format!(
        "  procwarden-collector serve --config {}",
        file.display()
    ));
    say("  procwarden token create          (then `procwarden-agent enroll` on each server)");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn options(dir: &Path) -> InitOptions {
        InitOptions {
            data_dir: dir.join("da\"ta"),
            names: vec!["collector.example.com".into()],
            config: Some(dir.join("etc/procwarden/collector.toml")),
        }
    }

    #[test]
    fn init_makes_an_identity_and_a_configuration_that_is_right() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        init(&options, crate::clock::now()).unwrap();
        assert!(Authority::load(&options.data_dir).is_ok());
        let text = fs::read_to_string(options.config.unwrap()).unwrap();
        let (config, remarks) = Config::parse("collector.toml", &text).unwrap();
        assert_eq!((config.data_dir, remarks), (options.data_dir, vec![]));
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let file = options.config.as_deref().unwrap();
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "# mine\n").unwrap();
        init(&options, crate::clock::now()).unwrap();
        let fleet = Authority::load(&options.data_dir).unwrap().fleet_id();
        let again = init(&options, crate::clock::now()).unwrap_err();
        assert!(matches!(again, Failure::Usage(_)), "{again:?}");
        assert_eq!(
            Authority::load(&options.data_dir).unwrap().fleet_id(),
            fleet
        );
        assert_eq!(fs::read_to_string(file).unwrap(), "# mine\n");
    }
}
