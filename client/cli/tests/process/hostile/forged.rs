//! Identities to which something was done: files, modes, dates, and certificates that the
//! authority's key has signed and our program would never issue.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certs::{Authority, Request};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, SignatureAlgorithm,
};
use shared::id::{Name, Role};

const DAY: Duration = Duration::from_secs(86_400);

fn clock() -> SystemTime {
    UNIX_EPOCH + super::now()
}

fn mode(identity: &Path, mode: u32) {
    fs::set_permissions(identity.join("key.pem"), Permissions::from_mode(mode)).unwrap();
}

pub(super) fn mode_0640(identity: &Path, _: &Path) {
    mode(identity, 0o640);
}

pub(super) fn mode_0644(identity: &Path, _: &Path) {
    mode(identity, 0o644);
}

pub(super) fn mode_0604(identity: &Path, _: &Path) {
    mode(identity, 0o604);
}

pub(super) fn mode_0602(identity: &Path, _: &Path) {
    mode(identity, 0o602);
}

pub(super) fn mode_0610(identity: &Path, _: &Path) {
    mode(identity, 0o610);
}

pub(super) fn no_folder(identity: &Path, _: &Path) {
    fs::remove_dir_all(identity).unwrap();
}

pub(super) fn no_ca(identity: &Path, _: &Path) {
    fs::remove_file(identity.join("ca.pem")).unwrap();
}

pub(super) fn no_cert(identity: &Path, _: &Path) {
    fs::remove_file(identity.join("cert.pem")).unwrap();
}

pub(super) fn no_key(identity: &Path, _: &Path) {
    fs::remove_file(identity.join("key.pem")).unwrap();
}

pub(super) fn key_is_a_folder(identity: &Path, _: &Path) {
    fs::remove_file(identity.join("key.pem")).unwrap();
    fs::create_dir(identity.join("key.pem")).unwrap();
}

pub(super) fn key_is_a_dangling_link(identity: &Path, _: &Path) {
    fs::remove_file(identity.join("key.pem")).unwrap();
    symlink("nowhere", identity.join("key.pem")).unwrap();
}

pub(super) fn garbage_ca(identity: &Path, _: &Path) {
    fs::write(identity.join("ca.pem"), b"garbage").unwrap();
}

pub(super) fn garbage_cert(identity: &Path, _: &Path) {
    fs::write(identity.join("cert.pem"), b"\xff\x00garbage").unwrap();
}

pub(super) fn garbage_key(identity: &Path, _: &Path) {
    fs::write(identity.join("key.pem"), b"-----BEGIN PRIVATE KEY-----\n!!\n").unwrap();
}

pub(super) fn empty_key(identity: &Path, _: &Path) {
    fs::write(identity.join("key.pem"), b"").unwrap();
}

pub(super) fn long_cert(identity: &Path, _: &Path) {
    fs::write(identity.join("cert.pem"), vec![b'x'; 65 * 1024]).unwrap();
}

pub(super) fn cut_cert(identity: &Path, _: &Path) {
    let pem = fs::read(identity.join("cert.pem")).unwrap();
    fs::write(identity.join("cert.pem"), &pem[..pem.len() / 2]).unwrap();
}

pub(super) fn broken_der(identity: &Path, _: &Path) {
    let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
    fs::write(identity.join("cert.pem"), pem).unwrap();
}

pub(super) fn key_of_another(identity: &Path, fleet: &Path) {
    fs::copy(fleet.join("identity/bob/key.pem"), identity.join("key.pem")).unwrap();
}

pub(super) fn ca_of_another(identity: &Path, fleet: &Path) {
    fs::copy(fleet.join("other-pki/ca.pem"), identity.join("ca.pem")).unwrap();
}

pub(super) fn cert_of_another_ca(identity: &Path, fleet: &Path) {
    for name in ["cert.pem", "key.pem"] {
        fs::copy(fleet.join("identity/foreign").join(name), identity.join(name)).unwrap();
    }
}

/// Complete and sound, but of an authority that the base does not know.
pub(super) fn all_of_another_ca(identity: &Path, fleet: &Path) {
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(fleet.join("identity/foreign").join(name), identity.join(name)).unwrap();
    }
}

/// It trusts the right authority beside its own, so only the base can refuse it.
pub(super) fn chain_of_another_ca(identity: &Path, fleet: &Path) {
    let own = fs::read(identity.join("ca.pem")).unwrap();
    all_of_another_ca(identity, fleet);
    let other = fs::read(identity.join("ca.pem")).unwrap();
    fs::write(identity.join("ca.pem"), [other, own].concat()).unwrap();
}

pub(super) fn of_a_node(identity: &Path, fleet: &Path) {
    of(identity, fleet, "n1");
}

pub(super) fn of_a_base(identity: &Path, fleet: &Path) {
    of(identity, fleet, "b");
}

fn of(identity: &Path, fleet: &Path, name: &str) {
    for file in ["cert.pem", "key.pem"] {
        fs::copy(fleet.join("identity").join(name).join(file), identity.join(file)).unwrap();
    }
}

fn issued(identity: &Path, fleet: &Path, at: SystemTime) {
    let authority = Authority::open(&fleet.join("pki")).unwrap();
    let request = Request {
        role: Role::Client,
        name: Name::new("alice").unwrap(),
        labels: [].into(),
        hosts: Vec::new(),
        valid_for: DAY,
    };
    fs::remove_dir_all(identity).unwrap();
    authority.issue(&request, at).unwrap().write(identity).unwrap();
}

pub(super) fn expired(identity: &Path, fleet: &Path) {
    issued(identity, fleet, clock() - 2 * DAY);
}

pub(super) fn not_yet_valid(identity: &Path, fleet: &Path) {
    issued(identity, fleet, clock() + 2 * DAY);
}

/// A certificate of the fleet's authority with these URIs in it.
fn signed(identity: &Path, fleet: &Path, uris: &[&str], algorithm: &'static SignatureAlgorithm) {
    let pem = |name: &str| fs::read_to_string(fleet.join("pki").join(name)).unwrap();
    let ca_key = KeyPair::from_pem(&pem("ca-key.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&pem("ca.pem"), ca_key).unwrap();
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    let dns = "client.distributary.internal";
    params.subject_alt_names = vec![SanType::DnsName(dns.try_into().unwrap())];
    params
        .subject_alt_names
        .extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(identity.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(identity.join("key.pem"), key.serialize_pem()).unwrap();
}

pub(super) fn without_a_role(identity: &Path, fleet: &Path) {
    signed(identity, fleet, &[], &PKCS_ED25519);
}

pub(super) fn two_roles(identity: &Path, fleet: &Path) {
    let uris = ["distributary://client/alice", "distributary://operator/alice"];
    signed(identity, fleet, &uris, &PKCS_ED25519);
}

pub(super) fn unknown_role(identity: &Path, fleet: &Path) {
    signed(identity, fleet, &["distributary://king/alice"], &PKCS_ED25519);
}

pub(super) fn bad_name(identity: &Path, fleet: &Path) {
    signed(identity, fleet, &["distributary://client/Alice"], &PKCS_ED25519);
}

pub(super) fn reserved_name(identity: &Path, fleet: &Path) {
    signed(identity, fleet, &["distributary://client/all"], &PKCS_ED25519);
}

pub(super) fn bad_label(identity: &Path, fleet: &Path) {
    let uris = ["distributary://client/alice", "distributary-label:site"];
    signed(identity, fleet, &uris, &PKCS_ED25519);
}

pub(super) fn unknown_statement(identity: &Path, fleet: &Path) {
    let uris = ["distributary://client/alice", "distributary-quota:0"];
    signed(identity, fleet, &uris, &PKCS_ED25519);
}

pub(super) fn ecdsa_key(identity: &Path, fleet: &Path) {
    signed(identity, fleet, &["distributary://client/alice"], &PKCS_ECDSA_P256_SHA256);
}

/// An RSA key of 512 bits in PKCS#8, which nothing here can use.
pub(super) fn rsa_key(identity: &Path, _: &Path) {
    let pem = "-----BEGIN PRIVATE KEY-----\n\
        MIIBVAIBADANBgkqhkiG9w0BAQEFAASCAT4wggE6AgEAAkEAq7BFUpkGp3+LQmlQ\n\
        Yx2eqzDV+xeG8kx/sQFV18S5JhzGeIJNA72wSeukEPojtqUyX2J0CciPBh7eqclQ\n\
        2zpAswIDAQABAkAgisq4+zRdrzkwH1ITV1vpytnkO/NiHcnePQiOW0VUybPyHoGM\n\
        /jf75C5xET7ZQpBe5kx5VHsPZj0CBb3b+wSRAiEA2mPWCBytosIU/ODRfq6EiV04\n\
        lt6waE7I2uSPqIC20LcCIQDJQYIHQII+3YaPqyhGgqMexuuuGx+lDKD6/Fu/JwPb\n\
        5QIhAKthiYcYKlL9h8bjDsQhZDUACPasjzdsDEdq8inDyLOFAiEAmCr/tZwA3qeA\n\
        ZoBzI10DGPIuoKXBd3nk/eBxPkaxlEECICNymjkoI7GldtujVnr1qT+3yedLfHKr\n\
        srVgEf9+uFJb\n\
        -----END PRIVATE KEY-----\n";
    fs::write(identity.join("key.pem"), pem).unwrap();
}
