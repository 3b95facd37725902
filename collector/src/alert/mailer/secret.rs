//! The mail server's password: read when it is needed, so a changed file needs
//! no reload, and never from a file that everyone can read.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::alert::words::one_line;

/// Longest password file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Reads a password, without the line ends behind it.
///
/// # Errors
/// In words for the operator, with the next step.
pub(super) fn read_password(path: &Path) -> Result<Zeroizing<String>, String> {
    let name = one_line(&path.display().to_string());
    let cannot = |error: std::io::Error| format!("cannot read smtp.password_file {name}: {error}");
    let file = File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.permissions().mode() & 0o007 != 0 {
        return Err(format!(
            "refusing smtp.password_file {name}: every account can use it; run chmod 600 {name}"
        ));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(PASSWORD_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > PASSWORD_BYTES_MAX {
        return Err(format!(
            "smtp.password_file {name} is longer than {PASSWORD_BYTES_MAX} bytes"
        ));
    }
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if password.is_empty() {
        return Err(format!(
            "smtp.password_file {name} is empty: write the password into it"
        ));
    }
    Ok(password)
}

/// Whether what is sent to this host stays on this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file_with(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_line_end_is_no_part_of_the_password_but_spaces_are() {
        let file = file_with(b" se cret \r\n", 0o600);
        assert_eq!(read_password(file.path()).unwrap().as_str(), " se cret ");
    }

    #[test]
    fn files_that_hold_no_secret_are_refused_with_the_next_step() {
        let table: [(&[u8], u32, &str); 4] = [
            (b"secret", 0o644, "chmod 600"),
            (b"\n", 0o600, "is empty"),
            (&[0xff], 0o600, "cannot read"),
            (&[b'x'; 5000], 0o600, "longer than"),
        ];
        for (content, mode, words) in table {
            let error = read_password(file_with(content, mode).path()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(read_password(Path::new("/nonexistent/x")).is_err());
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "10.0.0.1", "mail", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
