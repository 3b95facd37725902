//! The authority's files, and what it signs whatever it is asked to sign.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::*;

use super::csr::{CSR_BYTES_MAX, InvalidCsr};
use super::*;
use crate::clock;
use crate::tls::testing::{DAY_MILLIS, fleet, host_id, host_key};

fn der_of(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn names() -> Vec<String> {
    vec!["localhost".into()]
}

fn refusal(csr: &str) -> InvalidCsr {
    match fleet().authority.sign_host(host_id(1), csr, clock::now()) {
        Err(SignError::Csr(invalid)) => invalid,
        other => panic!("not a refusal of the request: {other:?}"),
    }
}

// === files ===

#[test]
fn init_makes_an_identity_that_load_reads() {
    let dir = tempfile::tempdir().unwrap();
    let made = Authority::init(dir.path(), &names(), clock::now()).unwrap();
    let read = Authority::load(dir.path()).unwrap();
    assert_eq!(made.fleet_id(), read.fleet_id());
    assert_eq!(made.ca_sha256(), read.ca_sha256());
    assert_eq!(read.names(), names());
    assert_eq!(
        read.not_after().millis_since(clock::now()) as i64 / DAY_MILLIS,
        CA_DAYS - 1
    );

    let mode = |name: &str| {
        fs::metadata(dir.path().join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("ca"), mode("ca/ca.key")), (0o700, 0o600));
    let entries: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(entries.len(), 1, "only ca/ is left: {entries:?}");
}

#[test]
fn init_makes_the_data_directory_and_never_overwrites_an_identity() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("a/b");
    let first = Authority::init(&data_dir, &names(), clock::now()).unwrap();
    let again = Authority::init(&data_dir, &names(), clock::now());
    assert!(matches!(again, Err(AuthorityError::Exists { .. })));
    assert_eq!(
        Authority::load(&data_dir).unwrap().ca_sha256(),
        first.ca_sha256()
    );
}

#[test]
fn a_directory_without_an_identity_says_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = Authority::load(dir.path()).err().unwrap();
    assert!(matches!(error, AuthorityError::Missing { .. }));
    assert!(
        error.to_string().contains("procwarden-collector init"),
        "{error}"
    );
}

#[test]
fn damaged_files_are_named_with_what_to_do() {
    let other = fleet();
    let other_file = |name: &str| fs::read(other.dir.path().join("ca").join(name)).unwrap();
    type Damage<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>, &'a str);
    let write = |bytes: Vec<u8>| move |path: &Path| fs::write(path, &bytes).unwrap();
    let table: Vec<Damage<'_>> = vec![
        (
            "ca.key",
            Box::new(|p| fs::remove_file(p).unwrap()),
            "it is missing; restore",
        ),
        (
            "ca.pem",
            Box::new(|p| fs::remove_file(p).unwrap()),
            "it is missing; restore",
        ),
        (
            "fleet.toml",
            Box::new(|p| fs::remove_file(p).unwrap()),
            "it is missing; restore",
        ),
        (
            "fleet.toml",
            Box::new(write(b"fleet_id = 1".to_vec())),
            "fleet.toml is wrong",
        ),
        (
            "fleet.toml",
            Box::new(write(other_file("fleet.toml"))),
            "not of the fleet",
        ),
        (
            "ca.pem",
            Box::new(write(b"-----BEGIN".to_vec())),
            "holds no certificate",
        ),
        (
            "ca.pem",
            Box::new(write(other_file("ca.pem"))),
            "not the key of ca.pem",
        ),
        (
            "ca.key",
            Box::new(write(b"garbage".to_vec())),
            "holds no private key",
        ),
        (
            "ca.key",
            Box::new(write(other_file("ca.key"))),
            "not the key of ca.pem",
        ),
        (
            "ca.key",
            Box::new(|p| fs::set_permissions(p, fs::Permissions::from_mode(0o640)).unwrap()),
            "chmod 600",
        ),
    ];
    for (file, damage, words) in table {
        let fleet = fleet();
        damage(&fleet.dir.path().join("ca").join(file));
        let error = Authority::load(fleet.dir.path()).err().unwrap().to_string();
        assert!(error.contains(words) && error.contains(file), "{error}");
    }
}

// === signing ===

#[test]
fn every_wish_of_a_request_is_ignored() {
    let key = KeyPair::generate().unwrap();
    let mut wishes = CertificateParams::default();
    wishes.distinguished_name.push(DnType::CommonName, "root");
    wishes.subject_alt_names = vec![
        SanType::DnsName("evil.example.com".try_into().unwrap()),
        SanType::URI("spiffe://x/host/y".try_into().unwrap()),
    ];
    wishes.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wishes.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wishes.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    wishes.custom_extensions = vec![CustomExtension::from_oid_content(
        &[1, 2, 3, 4],
        vec![0x05, 0x00],
    )];
    let csr = wishes.serialize_request(&key).unwrap().pem().unwrap();

    let fleet = fleet();
    let now = clock::now();
    let issued = fleet.authority.sign_host(host_id(7), &csr, now).unwrap();
    let der = der_of(&issued.pem);
    let (_, certificate) = parse_x509_certificate(&der).unwrap();
    assert_eq!(
        certificate.subject().to_string(),
        format!("CN={}", host_id(7))
    );
    assert_eq!(
        crate::tls::only_uri(&certificate).unwrap(),
        fleet.authority.fleet_id().host_uri(host_id(7))
    );
    let alternative = certificate
        .subject_alternative_name()
        .unwrap()
        .unwrap()
        .value;
    assert_eq!(alternative.general_names.len(), 1);
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth && !extended.any);
    assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
    assert_eq!(certificate.raw_serial(), issued.serial);
    let life = certificate.validity();
    let now_secs = now.0.div_euclid(1000);
    assert_eq!(
        life.not_before.timestamp(),
        (now.0 - 300_000).div_euclid(1000)
    );
    assert_eq!(life.not_after.timestamp(), now_secs + HOST_DAYS * 86_400);
    assert_eq!(issued.not_after, now.plus_millis(HOST_DAYS * DAY_MILLIS));
    let ca = der_of(fleet.authority.ca_pem());
    let (_, ca) = parse_x509_certificate(&ca).unwrap();
    certificate.verify_signature(Some(ca.public_key())).unwrap();
}

#[test]
fn serial_numbers_do_not_repeat() {
    let fleet = fleet();
    let csr = host_key().csr;
    let sign = || {
        fleet
            .authority
            .sign_host(host_id(1), &csr, clock::now())
            .unwrap()
            .serial
    };
    assert_ne!(sign(), sign());
}

#[test]
fn no_certificate_outlives_the_authority() {
    let fleet = fleet();
    let csr = host_key().csr;
    let end = fleet.authority.not_after();
    let late = fleet
        .authority
        .sign_host(host_id(1), &csr, end.plus_millis(-DAY_MILLIS))
        .unwrap();
    assert_eq!(late.not_after, end);
    let after = fleet.authority.sign_host(host_id(1), &csr, end);
    assert!(matches!(
        after,
        Err(SignError::Authority(AuthorityError::Ended { .. }))
    ));
    for absurd in [UnixMillis(i64::MIN), UnixMillis(-62_135_596_800_000)] {
        assert!(fleet.authority.sign_host(host_id(1), &csr, absurd).is_err());
    }
}

#[test]
fn two_kinds_of_keys_are_signed_and_others_refused() {
    let request = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
    };
    let fleet = fleet();
    for good in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        fleet
            .authority
            .sign_host(host_id(1), &request(good), clock::now())
            .unwrap();
    }
    assert_eq!(
        refusal(&request(&rcgen::PKCS_ECDSA_P384_SHA384)),
        InvalidCsr::UnsupportedKey
    );
}

#[test]
fn malformed_and_foreign_requests_are_refused() {
    assert_eq!(refusal(""), InvalidCsr::Malformed);
    assert_eq!(refusal(fleet().authority.ca_pem()), InvalidCsr::Malformed);
    assert_eq!(refusal(&"x".repeat(CSR_BYTES_MAX + 1)), InvalidCsr::TooLong);
    assert_eq!(
        refusal(&with_key_of(&host_key(), &host_key())),
        InvalidCsr::WrongSignature
    );
}

/// A request in which the public key was exchanged after it was signed.
fn with_key_of(
    signed: &crate::tls::testing::HostKey,
    wanted: &crate::tls::testing::HostKey,
) -> String {
    let mut der = csr_der(&signed.csr);
    let (from, to) = (signed.key.der_bytes(), wanted.key.der_bytes());
    let at = der
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    der[at..at + to.len()].copy_from_slice(to);
    csr_pem(&der)
}

fn csr_der(pem: &str) -> Vec<u8> {
    rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

fn csr_pem(der: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(der);
    let lines: Vec<_> = body
        .as_bytes()
        .chunks(64)
        .map(|l| std::str::from_utf8(l).unwrap())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        lines.join("\n")
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_requests_are_refused_without_a_panic(
        der in prop::collection::vec(any::<u8>(), 0..600),
        text in "\\PC{0,200}",
    ) {
        prop_assert!(csr::public_key(&csr_pem(&der)).is_err());
        prop_assert!(csr::public_key(&text).is_err());
    }

    #[test]
    fn a_mutated_request_never_yields_another_key(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let host = host_key();
        let mut der = csr_der(&host.csr);
        for (at, byte) in changes {
            let at = at.index(der.len());
            der[at] = byte;
        }
        if let Ok(key) = csr::public_key(&csr_pem(&der)) {
            prop_assert_eq!(key.der_bytes(), host.key.der_bytes());
        }
        der.truncate(cut.index(der.len()));
        prop_assert!(csr::public_key(&csr_pem(&der)).is_err());
    }
}
