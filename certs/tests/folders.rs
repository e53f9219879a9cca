//! Authorities and identities as folders: what is written, read back and refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod pki;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use certs::peer::{identify, is_signed_by};
use certs::{
    Authority, AuthorityError, CLOCK_SKEW, FileError, Identity, IdentityError, PeerIdentity,
};
use pki::{HOUR, Pki, now, request};
use shared::id::{Name, Role};

const SECOND: Duration = Duration::from_secs(1);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn load_error(dir: &Path) -> IdentityError {
    Identity::load(dir, now()).unwrap_err()
}

#[test]
fn an_identity_says_what_was_asked_for() {
    let pki = Pki::new();
    for role in Role::ALL {
        let mut wanted = request(role, &format!("x-{role}.1_a"));
        wanted.labels = [("region", "EU"), ("tier", "a.b-c_1")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        wanted.hosts = ["edge.example", "Edge2.Example.", "192.0.2.1", "2001:db8::1"]
            .map(str::to_owned)
            .into();
        let identity = Identity::load(&pki.write(&wanted), now()).unwrap();
        assert_eq!(identity.role(), role);
        assert_eq!(*identity.name(), wanted.name);
        assert_eq!(*identity.labels(), wanted.labels);
        assert_eq!(identity.not_before(), now() - CLOCK_SKEW);
        assert_eq!(identity.not_after(), now() + HOUR);
        let seen: PeerIdentity = identify(identity.chain()).unwrap();
        assert_eq!(seen, *identity.as_peer());
    }
}

#[test]
fn modes_are_those_that_are_promised() {
    let pki = Pki::new();
    let out = pki.write(&request(Role::Node, "a"));
    let home = pki.dir.path().join("pki");
    assert_eq!(mode(&home), 0o700);
    assert_eq!(mode(&home.join("ca-key.pem")), 0o600);
    assert_eq!(mode(&out), 0o700);
    assert_eq!(mode(&out.join("key.pem")), 0o600);
    assert_eq!(fs::read(out.join("ca.pem")).unwrap(), fs::read(home.join("ca.pem")).unwrap());
    assert!(!out.join("ca-key.pem").exists());
}

#[test]
fn an_opened_authority_issues_for_the_same_peers() {
    let pki = Pki::new();
    let opened = Authority::open(&pki.dir.path().join("pki")).unwrap();
    assert_eq!(opened.not_after(), pki.authority.not_after());
    let out = pki.dir.path().join("later");
    opened.issue(&request(Role::Client, "later"), now()).unwrap().write(&out).unwrap();
    // The files of one authority, old and new, are trusted by each other.
    fs::copy(pki.write(&request(Role::Node, "a")).join("ca.pem"), out.join("ca.pem")).unwrap();
    assert_eq!(Identity::load(&out, now()).unwrap().role(), Role::Client);
}

#[test]
fn signatures_are_those_of_the_certificate() {
    let pki = Pki::new();
    let (base, other) = (pki.identity(Role::Base, "base"), pki.identity(Role::Node, "a"));
    let signature = base.sign(b"page 1");
    assert!(is_signed_by(&base.public_key(), b"page 1", &signature));
    assert!(!is_signed_by(&base.public_key(), b"page 2", &signature));
    assert!(!is_signed_by(&other.public_key(), b"page 1", &signature));
    let key = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(base.pkcs8()).unwrap();
    assert_eq!(key.sign(b"page 1").as_ref(), signature);
}

#[test]
fn init_leaves_a_used_folder_alone() {
    let pki = Pki::new();
    let home = pki.dir.path().join("pki");
    let before = fs::read(home.join("ca-key.pem")).unwrap();
    let error = Authority::init(&home, now()).unwrap_err();
    assert!(matches!(error, AuthorityError::Used { .. }), "{error}");
    assert!(error.to_string().contains(home.to_str().unwrap()), "{error}");
    assert!(!error.is_refusal());
    assert_eq!(fs::read(home.join("ca-key.pem")).unwrap(), before);

    let empty = pki.dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert!(Authority::init(&empty, now()).is_ok());
    let file = pki.dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Authority::init(&file, now()), Err(AuthorityError::File(_))));
}

#[test]
fn an_identity_is_not_overwritten() {
    let pki = Pki::new();
    let out = pki.write(&request(Role::Node, "a"));
    let before = fs::read(out.join("key.pem")).unwrap();
    let again = pki.authority.issue(&request(Role::Node, "a"), now()).unwrap();
    let error = again.write(&out).unwrap_err();
    assert!(matches!(error, AuthorityError::File(FileError::Exists { .. })), "{error}");
    assert_eq!(fs::read(out.join("key.pem")).unwrap(), before);
    assert!(again.write(&pki.dir.path().join("pki")).is_err(), "the authority's own folder");
}

#[test]
fn requests_that_cannot_be_meant_are_refused() {
    let pki = Pki::new();
    let issue = |request| pki.authority.issue(&request, now());
    for role in [Role::Node, Role::Client, Role::Operator] {
        for name in ["all", "base"] {
            let taken = issue(request(role, name));
            assert!(matches!(taken, Err(AuthorityError::ReservedName { .. })), "{role} {name}");
        }
    }
    assert!(issue(request(Role::Base, "all")).is_err());
    assert!(issue(request(Role::Base, "base")).is_ok());

    for host in ["", "a b", "*.example", "ex\u{e4}mple", "a..b", "a/b", "example.."] {
        let mut wanted = request(Role::Node, "a");
        wanted.hosts.push(host.to_owned());
        assert!(matches!(issue(wanted), Err(AuthorityError::Host(_))), "{host:?}");
    }
    for host in ["base.distributary.internal", "BASE.distributary.internal."] {
        let mut wanted = request(Role::Node, "a");
        wanted.hosts.push(host.to_owned());
        assert!(matches!(issue(wanted), Err(AuthorityError::HostTaken(_))), "{host:?}");
    }
    let mut many = request(Role::Node, "a");
    many.hosts = vec!["h".to_owned(); certs::HOSTS_MAX + 1];
    assert!(matches!(issue(many), Err(AuthorityError::TooManyHosts(_))));

    let mut labelled = request(Role::Node, "a");
    labelled.labels = [("region".to_owned(), "a,b".to_owned())].into();
    assert!(matches!(issue(labelled), Err(AuthorityError::Label(_))));

    let lasting = |valid_for| {
        let mut wanted = request(Role::Node, "a");
        wanted.valid_for = valid_for;
        issue(wanted)
    };
    assert!(matches!(lasting(Duration::ZERO), Err(AuthorityError::TooShort)));
    assert!(lasting(certs::CA_VALID_FOR).is_ok());
    for long in [certs::CA_VALID_FOR + SECOND, Duration::MAX] {
        assert!(matches!(lasting(long), Err(AuthorityError::TooLong { .. })), "{long:?}");
    }
}

#[test]
fn a_loose_key_is_refused_with_the_remedy() {
    let pki = Pki::new();
    let key = pki.write(&request(Role::Node, "a")).join("key.pem");
    for loose in [0o640, 0o604, 0o644, 0o660, 0o610] {
        set_mode(&key, loose);
        let error = load_error(key.parent().unwrap());
        assert!(matches!(error, IdentityError::File(FileError::Loose { .. })), "{error}");
        assert!(!error.is_refusal());
        let text = error.to_string();
        assert!(text.contains(&format!("chmod 600 {}", key.display())), "{text}");
        assert!(text.contains(&format!("{loose:04o}")), "{text}");
    }
    for tight in [0o600, 0o400] {
        set_mode(&key, tight);
        assert!(Identity::load(key.parent().unwrap(), now()).is_ok(), "{tight:o}");
    }
    let home = pki.dir.path().join("pki");
    set_mode(&home.join("ca-key.pem"), 0o644);
    let error = Authority::open(&home).unwrap_err();
    assert!(matches!(error, AuthorityError::File(FileError::Loose { .. })), "{error}");
}

#[test]
fn missing_files_are_named() {
    let pki = Pki::new();
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let dir = pki.write(&request(Role::Node, &format!("without-{name}")));
        fs::remove_file(dir.join(name)).unwrap();
        let error = load_error(&dir);
        assert!(matches!(error, IdentityError::File(FileError::Missing { .. })), "{error}");
        assert!(error.to_string().contains(dir.join(name).to_str().unwrap()), "{error}");
        assert!(error.to_string().contains("certs issue"), "{error}");
    }
    let error = Authority::open(&pki.dir.path().join("nothing")).unwrap_err();
    assert!(error.to_string().contains("certs init"), "{error}");
}

#[test]
fn files_that_are_no_pem_are_refused_without_a_panic() {
    let pki = Pki::new();
    let dir = pki.write(&request(Role::Node, "a"));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let good = fs::read(dir.join(name)).unwrap();
        for bad in ["", "hello", broken, &broken.replace("CERTIFICATE", "PRIVATE KEY"), "\u{0}"] {
            fs::write(dir.join(name), bad).unwrap();
            assert!(Identity::load(&dir, now()).is_err(), "{name}: {bad:?}");
        }
        fs::write(dir.join(name), good).unwrap();
        assert!(Identity::load(&dir, now()).is_ok(), "{name}");
    }
}

#[test]
fn the_key_must_be_that_of_the_certificate() {
    let pki = Pki::new();
    let (a, b) = (pki.write(&request(Role::Node, "a")), pki.write(&request(Role::Node, "b")));
    fs::copy(b.join("key.pem"), a.join("key.pem")).unwrap();
    let error = load_error(&a);
    assert!(matches!(error, IdentityError::KeyMismatch { .. }), "{error}");

    let (home, other) = (pki.dir.path().join("pki"), Pki::new());
    fs::copy(other.dir.path().join("pki/ca-key.pem"), home.join("ca-key.pem")).unwrap();
    assert!(matches!(Authority::open(&home), Err(AuthorityError::KeyMismatch { .. })));
}

#[test]
fn the_certificate_must_be_of_the_authority_beside_it() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let dir = ours.write(&request(Role::Node, "a"));
    let (own_ca, foreign_ca) = (dir.join("ca.pem"), theirs.dir.path().join("pki/ca.pem"));
    let both = [fs::read(&foreign_ca).unwrap(), fs::read(&own_ca).unwrap()].concat();
    fs::copy(&foreign_ca, &own_ca).unwrap();
    let error = load_error(&dir);
    assert!(matches!(error, IdentityError::Untrusted { .. }), "{error}");
    assert!(error.is_refusal());
    fs::write(&own_ca, both).unwrap();
    assert!(Identity::load(&dir, now()).is_ok(), "one of several authorities is enough");
}

#[test]
fn a_certificate_of_another_making_is_refused() {
    let pki = Pki::new();
    let dir = pki.write(&request(Role::Node, "a"));
    fs::copy(dir.join("ca.pem"), dir.join("cert.pem")).unwrap();
    let error = load_error(&dir);
    assert!(matches!(error, IdentityError::Unidentified { .. }), "{error}");
    assert!(error.is_refusal());
}

#[test]
fn the_date_must_be_right_to_the_second() {
    let pki = Pki::new();
    let dir = pki.write(&request(Role::Node, "a"));
    for right in [now() - CLOCK_SKEW, now(), now() + HOUR] {
        assert!(Identity::load(&dir, right).is_ok(), "{right:?}");
    }
    let late = Identity::load(&dir, now() + HOUR + SECOND).unwrap_err();
    assert!(matches!(late, IdentityError::Expired { .. }), "{late}");
    assert!(late.to_string().contains("2027-01-15 09:00:00 UTC"), "{late}");
    let early = Identity::load(&dir, now() - CLOCK_SKEW - SECOND).unwrap_err();
    assert!(matches!(early, IdentityError::NotYetValid { .. }), "{early}");
    assert!(early.to_string().contains("2027-01-15 07:55:00 UTC"), "{early}");
    assert!(late.is_refusal() && early.is_refusal());
}

#[test]
fn a_role_is_demanded() {
    let client = Pki::new().identity(Role::Client, "studio");
    assert!(client.require(&[Role::Client, Role::Operator]).is_ok());
    let error = client.require(&[Role::Base, Role::Node]).unwrap_err();
    assert!(error.is_refusal());
    let text = error.to_string();
    assert!(text.contains("client studio") && text.contains("base or node"), "{text}");
}

#[test]
fn no_key_is_printed() {
    let pki = Pki::new();
    let issued = pki.authority.issue(&request(Role::Node, "a"), now()).unwrap();
    let out = pki.dir.path().join("a");
    issued.write(&out).unwrap();
    let identity = Identity::load(&out, now()).unwrap();
    let printed = format!("{:?} {issued:?} {identity:?}", pki.authority);
    for file in [out.join("key.pem"), pki.dir.path().join("pki/ca-key.pem")] {
        let pem = fs::read_to_string(file).unwrap();
        let body = pem.lines().nth(1).unwrap();
        assert!(!printed.contains(body), "{printed}");
    }
    assert!(!printed.contains(&format!("{:?}", identity.pkcs8())), "{printed}");
    assert!(printed.contains("Node") && !printed.contains("PRIVATE"), "{printed}");
    assert_eq!(*identity.name(), Name::new("a").unwrap());
}
