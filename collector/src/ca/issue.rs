//! What stands in the certificates: the authority's, the collector's and the
//! hosts'. Pure but for the random serial numbers.

use procwarden_common::clock::UnixMillis;
use procwarden_common::id::{FleetId, HostId};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::{Authority, AuthorityError, CA_DAYS, HOST_DAYS, IssuedCertificate};

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// Certificates begin a little before they are made: the clock of the other
/// side may be behind.
const CLOCK_SKEW_MILLIS: i64 = 5 * 60 * 1000;

/// The authority's own certificate.
pub(super) fn self_signed(
    fleet_id: FleetId,
    key: &KeyPair,
    now: UnixMillis,
) -> Result<Certificate, AuthorityError> {
    let common_name = format!("procwarden fleet {fleet_id}");
    let mut params = params(&common_name, now, now.plus_millis(CA_DAYS * DAY_MILLIS))?;
    params.subject_alt_names = vec![uri(&format!("spiffe://{fleet_id}"))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = false;
    Ok(params.self_signed(key)?)
}

/// The certificate of a host.
pub(super) fn host(
    authority: &Authority,
    host: HostId,
    key: &impl PublicKeyData,
    now: UnixMillis,
) -> Result<IssuedCertificate, AuthorityError> {
    let not_after = end_of(authority, now, HOST_DAYS)?;
    let mut params = params(&host.to_string(), now, not_after)?;
    params.subject_alt_names = vec![uri(&authority.fleet_id.host_uri(host))?];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    signed(authority, params, key, not_after).map(|(issued, _)| issued)
}

/// The collector's own certificate for its listeners.
pub(super) fn server(
    authority: &Authority,
    key: &KeyPair,
    now: UnixMillis,
    days: i64,
) -> Result<Certificate, AuthorityError> {
    let not_after = end_of(authority, now, days)?;
    let mut params = params("procwarden collector", now, not_after)?;
    params.subject_alt_names = authority.names.alternative_names()?;
    params
        .subject_alt_names
        .push(uri(&authority.fleet_id.collector_uri())?);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    signed(authority, params, key, not_after).map(|(_, certificate)| certificate)
}

fn signed(
    authority: &Authority,
    params: CertificateParams,
    key: &impl PublicKeyData,
    not_after: UnixMillis,
) -> Result<(IssuedCertificate, Certificate), AuthorityError> {
    let serial = params
        .serial_number
        .as_ref()
        .map(SerialNumber::to_bytes)
        .unwrap_or_default();
    let certificate = params.signed_by(key, &authority.issuer)?;
    Ok((
        IssuedCertificate {
            pem: certificate.pem(),
            serial,
            not_after,
        },
        certificate,
    ))
}

/// A leaf that may do nothing yet; callers add what it is for.
fn params(
    common_name: &str,
    now: UnixMillis,
    not_after: UnixMillis,
) -> Result<CertificateParams, AuthorityError> {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = date(now.plus_millis(-CLOCK_SKEW_MILLIS))?;
    params.not_after = date(not_after)?;
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// No certificate outlives the authority.
pub(super) fn end_of(
    authority: &Authority,
    now: UnixMillis,
    days: i64,
) -> Result<UnixMillis, AuthorityError> {
    if now >= authority.not_after {
        return Err(AuthorityError::Ended {
            not_after: authority.not_after,
        });
    }
    Ok(now.plus_millis(days * DAY_MILLIS).min(authority.not_after))
}

fn uri(text: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(text.try_into()?))
}

/// Certificates know whole seconds.
fn date(at: UnixMillis) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
        .ok()
        .filter(|date| (1970..=9999).contains(&date.year()))
        .ok_or(AuthorityError::TimeOutOfRange)
}

/// 16 random bytes; positive and of constant length, as RFC 5280 (4.1.2.2)
/// wants serial numbers.
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| AuthorityError::Random(e.to_string()))?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
