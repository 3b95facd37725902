//! Identities on a real disk, with certificates made here.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

use super::*;

struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    Ca {
        certificate,
        issuer: Issuer::new(params, key),
    }
}

fn facts(host: u8) -> Facts {
    Facts {
        host_id: HostId::from_slice(&[host; 16]).unwrap(),
        fleet_id: FleetId::from_slice(&[9; 16]).unwrap(),
        collector: "collector.test:7443".parse().unwrap(),
    }
}

fn issue(ca: &Ca, request: &KeyRequest, facts: &Facts) -> String {
    let mut csr = CertificateSigningRequestParams::from_pem(&request.csr_pem()).unwrap();
    let uri = facts.fleet_id.host_uri(facts.host_id);
    csr.params = CertificateParams::default();
    csr.params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    csr.signed_by(&ca.issuer).unwrap().pem()
}

fn checked(ca: &Ca, pem: &str, facts: &Facts) -> Result<(), IdentityError> {
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    check(
        &leaf,
        ca.certificate.der(),
        facts.host_id,
        facts.fleet_id,
        crate::clock::now(),
    )
}

#[test]
fn an_identity_is_read_as_it_was_written() {
    let (dir, ca, request) = (
        tempfile::tempdir().unwrap(),
        ca(),
        KeyRequest::generate().unwrap(),
    );
    let pem = issue(&ca, &request, &facts(1));
    create(
        dir.path(),
        &facts(1),
        &ca.certificate.pem(),
        &request.host_pem(&pem),
        false,
    )
    .unwrap();
    let identity = load(dir.path()).unwrap();
    assert_eq!(identity.facts, facts(1));
    assert_eq!(&identity.ca, ca.certificate.der());
    assert!(identity.validity.renew_at() > identity.validity.not_before);
    assert!(identity.validity.renew_at() < identity.validity.not_after);
    let mode = std::fs::metadata(super::dir(dir.path()).join(HOST_FILE))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn an_identity_is_replaced_only_by_force() {
    let (dir, ca, request) = (
        tempfile::tempdir().unwrap(),
        ca(),
        KeyRequest::generate().unwrap(),
    );
    let write = |host, force| {
        let pem = issue(&ca, &request, &facts(host));
        create(
            dir.path(),
            &facts(host),
            &ca.certificate.pem(),
            &request.host_pem(&pem),
            force,
        )
    };
    write(1, false).unwrap();
    assert!(matches!(write(2, false), Err(IdentityError::Exists { .. })));
    assert_eq!(load(dir.path()).unwrap().facts, facts(1));
    write(2, true).unwrap();
    assert_eq!(load(dir.path()).unwrap().facts, facts(2));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_host_that_never_enrolled_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("procwarden-agent enroll --token"), "{error}");
}

#[test]
fn a_certificate_of_another_key_ca_host_or_fleet_is_refused() {
    let (ca, other_ca) = (ca(), ca_other());
    let (request, other_request) = (
        KeyRequest::generate().unwrap(),
        KeyRequest::generate().unwrap(),
    );
    let pem = issue(&ca, &request, &facts(1));
    assert!(checked(&ca, &pem, &facts(1)).is_ok());
    assert!(checked(&ca, &pem, &facts(2)).is_err());
    assert!(checked(&other_ca, &pem, &facts(1)).is_err());
    assert!(read_host_pem(request.host_pem(&pem).as_bytes()).is_ok());
    assert!(read_host_pem(other_request.host_pem(&pem).as_bytes()).is_err());
}

fn ca_other() -> Ca {
    ca()
}
