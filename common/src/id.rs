//! Identifiers: of fleets, hosts, boots and findings.
//!
//! Ids are types, so that a host id is never taken for a boot id, and each
//! parses from exactly the form in which it is printed.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// An identifier had another form than the one it is printed in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: {reason}")]
pub struct InvalidId {
    what: &'static str,
    reason: String,
}

impl InvalidId {
    fn new(what: &'static str, reason: impl fmt::Display) -> Self {
        Self {
            what,
            reason: reason.to_string(),
        }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Reads the 16 bytes of the wire form.
            ///
            /// # Errors
            /// When there are not exactly 16 bytes.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
                Uuid::from_slice(bytes).map(Self).map_err(|e| InvalidId::new($what, e))
            }

            /// The 16 bytes of the wire form.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::try_parse(text.trim()).map(Self).map_err(|e| InvalidId::new($what, e))
            }
        }
    };
}

uuid_id! {
    /// A fleet: one collector's certificate authority and all it enrolled.
    FleetId, "fleet id"
}
uuid_id! {
    /// A server with an enrolled agent. Taken from its certificate only.
    HostId, "host id"
}
uuid_id! {
    /// One boot of a kernel: `/proc/sys/kernel/random/boot_id`.
    BootId, "boot id"
}

impl FleetId {
    /// The URI that a host's certificate carries as subject alternative name.
    #[must_use]
    pub fn host_uri(&self, host: HostId) -> String {
        format!("spiffe://{self}/host/{host}")
    }

    /// The URI that the collector's own certificate carries.
    #[must_use]
    pub fn collector_uri(&self) -> String {
        format!("spiffe://{self}/collector")
    }

    /// The host that a certificate's URI names, when it is of this fleet.
    ///
    /// # Errors
    /// When the URI is of another fleet or of another form.
    pub fn host_of_uri(&self, uri: &str) -> Result<HostId, InvalidId> {
        let rest = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| InvalidId::new("host URI", "it does not begin with spiffe://"))?;
        let (fleet, host) = rest
            .split_once("/host/")
            .ok_or_else(|| InvalidId::new("host URI", "it has no /host/ part"))?;
        if fleet.parse::<Self>()? != *self {
            return Err(InvalidId::new("host URI", "it names another fleet"));
        }
        host.parse()
    }
}

/// A finding: the first 16 bytes of a SHA-256 over host and subject, so every
/// program derives the same id from the same process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingId([u8; 16]);

impl FindingId {
    /// Wraps the 16 bytes of the wire form.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the 16 bytes of the wire form.
    ///
    /// # Errors
    /// When there are not exactly 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, InvalidId> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| InvalidId::new("finding id", "it has not 16 bytes"))
    }

    /// The 16 bytes of the wire form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for FindingId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .map_err(|e| InvalidId::new("finding id", e))?;
        Self::from_slice(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> FleetId {
        FleetId::from_uuid(Uuid::from_u128(7))
    }

    #[test]
    fn a_host_uri_names_its_host() {
        let host = HostId::from_uuid(Uuid::from_u128(9));
        assert_eq!(fleet().host_of_uri(&fleet().host_uri(host)), Ok(host));
    }

    #[test]
    fn uris_of_other_fleets_and_forms_are_refused() {
        let other = FleetId::from_uuid(Uuid::from_u128(8));
        let host = HostId::from_uuid(Uuid::from_u128(9));
        for uri in [
            other.host_uri(host),
            fleet().collector_uri(),
            "https://x/host/y".into(),
        ] {
            assert!(fleet().host_of_uri(&uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn a_finding_id_parses_from_what_it_prints() {
        let id = FindingId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("abcd".parse::<FindingId>().is_err());
    }
}
