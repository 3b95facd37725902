//! The names by which agents reach the collector: DNS names and IP addresses,
//! checked once and in one canonical form.

use procwarden_common::printable::printable;
use rcgen::SanType;
use rustls_pki_types::ServerName;

use super::AuthorityError;

/// Checked names, in the order given, without repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    strings: Vec<String>,
}

impl Names {
    /// Checks each name; at least one is needed.
    pub(super) fn parse(names: &[String]) -> Result<Self, AuthorityError> {
        let mut strings = Vec::new();
        for name in names {
            let canonical = canonical(name).ok_or_else(|| AuthorityError::InvalidName {
                name: printable(name.as_bytes()),
            })?;
            if !strings.contains(&canonical) {
                strings.push(canonical);
            }
        }
        if strings.is_empty() {
            return Err(AuthorityError::NoName);
        }
        Ok(Self { strings })
    }

    pub(super) fn as_strings(&self) -> &[String] {
        &self.strings
    }

    /// As subject alternative names of a certificate.
    pub(super) fn alternative_names(&self) -> Result<Vec<SanType>, AuthorityError> {
        let one = |name: &String| match name.parse() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => Ok(SanType::DnsName(name.as_str().try_into()?)),
        };
        self.strings.iter().map(one).collect()
    }
}

/// Lower case, IP addresses in their shortest form and without brackets.
fn canonical(name: &str) -> Option<String> {
    let bare = name.trim().trim_start_matches('[').trim_end_matches(']');
    let bare = bare.strip_suffix('.').unwrap_or(bare);
    match ServerName::try_from(bare).ok()? {
        ServerName::DnsName(dns) => Some(dns.as_ref().to_ascii_lowercase()),
        ServerName::IpAddress(address) => Some(std::net::IpAddr::from(address).to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_one_canonical_form() {
        let given = [
            "Collector.Example.com.",
            "192.0.2.1",
            "[2001:DB8:0:0::1]",
            "192.0.2.1",
        ];
        let names = Names::parse(&given.map(String::from)).unwrap();
        assert_eq!(
            names.as_strings(),
            ["collector.example.com", "192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(names.alternative_names().unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "https://x.example.com",
            "x:7443",
            "a b",
            "x\ny",
            "-.-",
            "192.0.2.1/24",
        ] {
            assert!(
                matches!(
                    Names::parse(&[bad.into()]),
                    Err(AuthorityError::InvalidName { .. })
                ),
                "{bad:?}"
            );
        }
        assert!(matches!(Names::parse(&[]), Err(AuthorityError::NoName)));
    }
}
