//! Loads the configuration at the start and again on SIGHUP.
//!
//! Promises: a file with errors changes nothing; a running collector keeps its
//! data directory and listeners whatever the file says.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use procwarden_common::diagnostic::Diagnostic;
use procwarden_common::printable::printable;

use super::failure::{Failure, complain};
use crate::config::{Config, MailTransport};

/// A configuration is a page or two.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Reads and checks the configuration; warnings go to standard error.
pub(super) fn load(file: &Path) -> Result<Config, Failure> {
    let (config, warnings) = read(file)?;
    complain(
        &warnings
            .iter()
            .map(Diagnostic::to_string)
            .collect::<Vec<_>>(),
    );
    Ok(config)
}

/// Reads the file again and swaps in what can be swapped.
pub(super) fn reload(file: &Path, current: &ArcSwap<Config>) {
    let (new, warnings) = match read(file) {
        Ok(read) => read,
        Err(failure) => {
            for error in errors_of(&failure) {
                tracing::error!(error, "The new configuration is wrong.");
            }
            tracing::error!(
                "The configuration stays as it was: correct the file and send SIGHUP again."
            );
            return;
        }
    };
    for warning in warnings {
        tracing::warn!(%warning, "The new configuration has a warning.");
    }
    let old = current.load();
    if new.data_dir != old.data_dir || new.listen != old.listen {
        tracing::warn!("A changed data_dir or [listen] needs a restart; the rest is in force.");
    }
    current.store(Arc::new(keep_fixed(new, &old)));
    tracing::info!("The configuration was read again.");
}

/// What a running process cannot change stays as it was.
fn keep_fixed(new: Config, old: &Config) -> Config {
    Config {
        data_dir: old.data_dir.clone(),
        listen: old.listen.clone(),
        ..new
    }
}

fn read(file: &Path) -> Result<(Config, Vec<Diagnostic>), Failure> {
    let name = printable(file.as_os_str().as_encoded_bytes());
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::Usage(format!("cannot read the configuration {name}: {error}"))
    };
    let length = std::fs::metadata(file)
        .map_err(|error| cannot(&error))?
        .len();
    if length > CONFIG_BYTES_MAX {
        return Err(cannot(&format!(
            "it has more than {CONFIG_BYTES_MAX} bytes"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|error| cannot(&error))?;
    let (config, warnings) = Config::parse(&name, &text).map_err(Failure::Config)?;
    check_files(&config)?;
    Ok((config, warnings))
}

/// A password or authority that cannot be read is better known now than when
/// the first alert has to leave.
fn check_files(config: &Config) -> Result<(), Failure> {
    let Some(MailTransport::Smtp(smtp)) = config.mail.as_ref().map(|mail| &mail.transport) else {
        return Ok(());
    };
    let named = [
        ("password_file", &smtp.password_file),
        ("ca_file", &smtp.ca_file),
    ];
    for (key, file) in named
        .into_iter()
        .filter_map(|(key, file)| Some((key, file.as_ref()?)))
    {
        if let Err(error) = File::open(file) {
            let file = printable(file.as_os_str().as_encoded_bytes());
            return Err(Failure::Usage(format!(
                "cannot read the {key} {file}: {error}"
            )));
        }
    }
    Ok(())
}

fn errors_of(failure: &Failure) -> Vec<String> {
    match failure {
        Failure::Config(remarks) => remarks.iter().map(Diagnostic::to_string).collect(),
        Failure::Usage(sentence) | Failure::Negative(sentence) => vec![sentence.clone()],
        Failure::Runtime(error) => vec![format!("{error:#}")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
        let file = dir.path().join("collector.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn a_reload_swaps_what_can_be_swapped_and_keeps_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(&dir, "data_dir = '/old'\n");
        let current = ArcSwap::from_pointee(load(&file).unwrap());
        write(
            &dir,
            "data_dir = '/new'\n[retention]\ndays = 7\n[listen]\nfleet = '127.0.0.1:0'\n",
        );
        reload(&file, &current);
        let now = current.load();
        assert_eq!(now.retention_days, Some(7));
        assert_eq!(now.data_dir, Path::new("/old"));
        assert_eq!(now.listen.fleet.to_string(), "0.0.0.0:7443");
    }

    #[test]
    fn a_wrong_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(&dir, "data_dir = '/old'\n[retention]\ndays = 7\n");
        let current = ArcSwap::from_pointee(load(&file).unwrap());
        write(&dir, "data_dir = '/old'\n[retention]\ndays = 'many'\n");
        reload(&file, &current);
        std::fs::remove_file(&file).unwrap();
        reload(&file, &current);
        assert_eq!(current.load().retention_days, Some(7));
    }

    #[test]
    fn files_that_the_configuration_names_must_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let text = "data_dir = '/d'\n[mail]\ntransport = 'smtp'\nfrom = 'a@b'\nto = 'c@d'\n\
                    [mail.smtp]\nhost = 'h'\nca_file = '/nonexistent/ca.pem'\n";
        let failure = load(&write(&dir, text)).unwrap_err();
        assert!(
            matches!(&failure, Failure::Usage(text) if text.contains("ca_file")),
            "{failure:?}"
        );
    }
}
