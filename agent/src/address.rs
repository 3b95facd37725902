//! `name:port` of a collector's listener. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// Where a listener is: a name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without brackets.
    host: String,
    port: u16,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address: write name:port, such as collector.example.com:7443 or [2001:db8::1]:7443"
)]
pub(crate) struct InvalidAddress;

impl Address {
    /// The same machine, another port.
    pub(crate) fn with_port(&self, port: u16) -> Self {
        Self {
            host: self.host.clone(),
            port,
        }
    }

    /// What tokio connects to.
    pub(crate) fn to_connect(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    /// What the certificate at that address must name.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, InvalidAddress> {
        ServerName::try_from(self.host.clone()).map_err(|_| InvalidAddress)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (host, port) = text.trim().rsplit_once(':').ok_or(InvalidAddress)?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(v6) => v6
                .parse::<Ipv6Addr>()
                .map_err(|_| InvalidAddress)?
                .to_string(),
            None if host.contains(':') => return Err(InvalidAddress),
            None => host.to_owned(),
        };
        let port = port
            .parse()
            .ok()
            .filter(|&p| p != 0)
            .ok_or(InvalidAddress)?;
        let address = Self { host, port };
        address.server_name()?;
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_it_was_written() {
        for text in [
            "collector.example.com:7443",
            "127.0.0.1:1",
            "[::1]:65535",
            "localhost:7443",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "host",
            "host:",
            ":7443",
            "host:0",
            "host:65536",
            "::1:7443",
            "[host]:1",
            "a b:1",
            "https://x:1",
        ] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress), "{text}");
        }
    }
}
