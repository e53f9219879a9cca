//! One authority and the identities of all fleets. Each is made once, when it is first asked for:
//! certificates are random and differ in length, and runs that are compared have to have the same.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use certs::{Authority, Identity, Request};
use shared::id::{Name, Role};
use shared_io::clock::Clock;
use tempfile::TempDir;

static IDENTITIES: LazyLock<Identities> = LazyLock::new(Identities::new);

pub(crate) fn base() -> &'static Identity {
    IDENTITIES.of(Role::Base, "base".to_owned())
}

pub(crate) fn node(index: usize) -> &'static Identity {
    IDENTITIES.of(Role::Node, format!("node{index:02}"))
}

pub(crate) fn client(index: usize) -> &'static Identity {
    IDENTITIES.of(Role::Client, format!("client{index:02}"))
}

struct Identities {
    folder: TempDir,
    authority: Authority,
    /// They live as long as the process does.
    issued: Mutex<BTreeMap<String, &'static Identity>>,
}

impl Identities {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::init(&folder.path().join("pki"), Clock::wall()).unwrap();
        Self { folder, authority, issued: Mutex::default() }
    }

    fn of(&self, role: Role, name: String) -> &'static Identity {
        let mut issued = self.issued.lock().unwrap();
        issued.entry(name).or_insert_with_key(|name| self.issue(role, name))
    }

    fn issue(&self, role: Role, name: &str) -> &'static Identity {
        let request = Request {
            role,
            name: Name::new(name).unwrap(),
            labels: BTreeMap::new(),
            hosts: Vec::new(),
            valid_for: Duration::from_secs(24 * 3600),
        };
        let (dir, now) = (self.folder.path().join(name), Clock::wall());
        self.authority.issue(&request, now).unwrap().write(&dir).unwrap();
        Box::leak(Box::new(Identity::load(&dir, now).unwrap()))
    }
}
