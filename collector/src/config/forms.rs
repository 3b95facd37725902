//! The forms that single values of the configuration must have. Pure: each
//! takes the text of a value, and its error says what to write instead.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Bytes of a Unix socket's path: `sun_path` with its closing NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Bytes of a mail address with its display name.
const ADDRESS_BYTES_MAX: usize = 512;

/// `IP:PORT`.
pub(super) fn socket_addr(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "write IP:PORT, such as 0.0.0.0:7443 or [::]:7443")
}

/// `unix:/path`.
pub(super) fn unix_socket(text: &str) -> Result<PathBuf, String> {
    let path = text
        .strip_prefix("unix:")
        .filter(|path| path.starts_with('/'))
        .ok_or("write unix: and an absolute path, such as unix:/run/procwarden/admin.sock")?;
    if path.len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes"
        ));
    }
    absolute_path(path).map_err(str::to_owned)
}

/// A path that does not depend on where the collector was started.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    if text.contains(char::is_control) {
        return Err("a path has no control characters");
    }
    if !text.starts_with('/') {
        return Err("write an absolute path");
    }
    Ok(PathBuf::from(text))
}

/// `ops@example.com` or `Ops <ops@example.com>`: only what would break a
/// header is refused here; the mail library reads the rest.
pub(super) fn mail_address(text: &str) -> Result<String, &'static str> {
    let shown = text.trim();
    if shown.contains(char::is_control) {
        return Err("a mail address has no control characters");
    }
    if shown.len() > ADDRESS_BYTES_MAX {
        return Err("the mail address is too long");
    }
    let between = shown.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && !host.is_empty()
            && !user.ends_with([' ', '<'])
            && !host.starts_with(' ')
    });
    if !between {
        return Err("write a mail address, such as ops@example.com");
    }
    Ok(shown.to_owned())
}

/// A host name or IP address.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err("write a host name or an IP address");
    }
    Ok(text.to_owned())
}

/// A word without control characters that is not empty.
pub(super) fn word(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains(char::is_control) {
        return Err("write a text without control characters");
    }
    Ok(text.to_owned())
}
