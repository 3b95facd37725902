//! The authority on disk: `<data_dir>/ca/` with `ca.pem`, `ca.key` and
//! `fleet.toml`.
//!
//! Promises: the directory appears whole or not at all (it is written under
//! another name, synced, then renamed); the key is 0600 from its first byte;
//! nothing that exists is ever overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::FleetId;
use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::AuthorityError;

const DIRECTORY: &str = "ca";
const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
const FLEET_FILE: &str = "fleet.toml";

/// Bytes of each file; none comes near it.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What `create` writes.
pub(super) struct Contents<'a> {
    pub(super) certificate_pem: &'a str,
    pub(super) key_pem: &'a str,
    pub(super) fleet_id: FleetId,
    pub(super) names: &'a [String],
}

/// What `read` found.
pub(super) struct Stored {
    dir: PathBuf,
    pub(super) certificate_pem: String,
    pub(super) certificate: CertificateDer<'static>,
    key_pem: Zeroizing<String>,
    pub(super) fleet_id: FleetId,
    pub(super) names: Vec<String>,
}

/// What `check` made of it.
pub(super) struct Checked {
    pub(super) key: KeyPair,
    pub(super) not_after: UnixMillis,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FleetFile {
    fleet_id: String,
    names: Vec<String>,
}

/// Writes a new identity, durably.
pub(super) fn create(data_dir: &Path, contents: &Contents<'_>) -> Result<(), AuthorityError> {
    let dir = data_dir.join(DIRECTORY);
    if fs::symlink_metadata(&dir).is_ok() {
        return Err(AuthorityError::Exists { dir });
    }
    let private_dir = |path: &Path, recursive| {
        let made = DirBuilder::new()
            .mode(0o700)
            .recursive(recursive)
            .create(path);
        made.map_err(io_error("create directory", path))
    };
    private_dir(data_dir, true)?;
    let unfinished = data_dir.join(format!(".{DIRECTORY}-{}", Uuid::new_v4()));
    private_dir(&unfinished, false)?;
    let result = fill(&unfinished, contents).and_then(|()| publish(&unfinished, &dir));
    if result.is_err() {
        // The first error is what counts; a hidden directory may stay.
        drop(fs::remove_dir_all(&unfinished));
    }
    result?;
    sync_dir(data_dir)
}

fn fill(dir: &Path, contents: &Contents<'_>) -> Result<(), AuthorityError> {
    write_new(&dir.join(KEY_FILE), contents.key_pem.as_bytes(), 0o600)?;
    write_new(
        &dir.join(CERTIFICATE_FILE),
        contents.certificate_pem.as_bytes(),
        0o644,
    )?;
    write_new(
        &dir.join(FLEET_FILE),
        fleet_file(contents).as_bytes(),
        0o644,
    )?;
    sync_dir(dir)
}

/// rename(2) refuses a target directory that holds something, so two `init`
/// at once cannot overwrite each other either.
fn publish(unfinished: &Path, dir: &Path) -> Result<(), AuthorityError> {
    fs::rename(unfinished, dir).map_err(|source| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => AuthorityError::Exists {
            dir: dir.to_owned(),
        },
        _ => AuthorityError::Io {
            action: "create directory",
            path: dir.to_owned(),
            source,
        },
    })
}

/// Ids and checked names have no character that TOML would escape.
fn fleet_file(contents: &Contents<'_>) -> String {
    let names: Vec<_> = contents
        .names
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    format!(
        "# Made by `procwarden-collector init`. The names are in the collector's certificates.\n\
         fleet_id = \"{}\"\nnames = [{}]\n",
        contents.fleet_id,
        names.join(", ")
    )
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error("write", path))
}

fn sync_dir(dir: &Path) -> Result<(), AuthorityError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("sync", dir))
}

/// Reads the files of an identity.
pub(super) fn read(data_dir: &Path) -> Result<Stored, AuthorityError> {
    let dir = data_dir.join(DIRECTORY);
    if let Err(source) = fs::metadata(&dir) {
        return Err(match source.kind() {
            io::ErrorKind::NotFound => AuthorityError::Missing { path: dir },
            _ => io_error("read directory", &dir)(source),
        });
    }
    let fleet_path = dir.join(FLEET_FILE);
    let fleet: FleetFile = toml::from_str(&read_text(&fleet_path)?)
        .map_err(|error| invalid(&fleet_path, error.message()))?;
    let fleet_id = fleet
        .fleet_id
        .parse()
        .map_err(|error| invalid(&fleet_path, error))?;
    let certificate_path = dir.join(CERTIFICATE_FILE);
    let certificate_pem = read_text(&certificate_path)?;
    let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|_| invalid(&certificate_path, "it holds no certificate in PEM"))?;
    let key_path = dir.join(KEY_FILE);
    refuse_exposed_key(&key_path)?;
    let key_pem = Zeroizing::new(read_text(&key_path)?);
    Ok(Stored {
        dir,
        certificate_pem,
        certificate,
        key_pem,
        fleet_id,
        names: fleet.names,
    })
}

/// Checks that certificate, key and fleet belong together.
pub(super) fn check(stored: &Stored) -> Result<Checked, AuthorityError> {
    let key_path = stored.dir.join(KEY_FILE);
    let key = KeyPair::from_pem(&stored.key_pem)
        .map_err(|_| invalid(&key_path, "it holds no private key in PEM"))?;
    let certificate_path = stored.dir.join(CERTIFICATE_FILE);
    let (_, certificate) = x509_parser::parse_x509_certificate(&stored.certificate)
        .map_err(|_| invalid(&certificate_path, "it cannot be parsed"))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err(invalid(&key_path, "it is not the key of ca.pem"));
    }
    let expected = format!("spiffe://{}", stored.fleet_id);
    if crate::tls::only_uri(&certificate) != Ok(expected.as_str()) {
        return Err(invalid(
            &certificate_path,
            "it is not of the fleet that fleet.toml names",
        ));
    }
    let not_after_secs = certificate.validity().not_after.timestamp();
    Ok(Checked {
        key,
        not_after: UnixMillis(not_after_secs.saturating_mul(1000)),
    })
}

fn refuse_exposed_key(path: &Path) -> Result<(), AuthorityError> {
    let metadata = fs::metadata(path).map_err(lost_or_io(path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AuthorityError::KeyExposed {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

fn read_text(path: &Path) -> Result<String, AuthorityError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(lost_or_io(path))?;
    Ok(text)
}

/// A file that is gone while others of the identity are there.
fn lost_or_io(path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    move |source| match source.kind() {
        io::ErrorKind::NotFound => invalid(path, "it is missing"),
        _ => AuthorityError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        },
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuthorityError {
    move |source| AuthorityError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn invalid(path: &Path, reason: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::InvalidFile {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
