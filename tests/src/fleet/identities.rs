//! One authority and the identities of all fleets. They are made once: certificates are random and
//! differ in length, and runs that are compared have to have the same.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use certs::{Authority, Identity, Request};
use shared::id::{Name, Role};
use shared_io::clock::Clock;

/// Most nodes and most clients of a fleet.
pub const EACH_MAX: usize = 40;

static IDENTITIES: LazyLock<BTreeMap<String, Identity>> = LazyLock::new(issue_all);

pub(crate) fn base() -> &'static Identity {
    &IDENTITIES["base"]
}

pub(crate) fn node(index: usize) -> &'static Identity {
    &IDENTITIES[&format!("node{index:02}")]
}

pub(crate) fn client(index: usize) -> &'static Identity {
    &IDENTITIES[&format!("client{index:02}")]
}

fn issue_all() -> BTreeMap<String, Identity> {
    let folder = tempfile::tempdir().unwrap();
    let now = Clock::wall();
    let authority = Authority::init(&folder.path().join("pki"), now).unwrap();
    let numbered = |role: Role| (0..EACH_MAX).map(move |i| (role, format!("{role}{i:02}")));
    let names = numbered(Role::Node).chain(numbered(Role::Client));
    names
        .chain([(Role::Base, "base".to_owned())])
        .map(|(role, name)| {
            let request = Request {
                role,
                name: Name::new(name.as_str()).unwrap(),
                labels: BTreeMap::new(),
                hosts: Vec::new(),
                valid_for: Duration::from_secs(24 * 3600),
            };
            let dir = folder.path().join(&name);
            authority.issue(&request, now).unwrap().write(&dir).unwrap();
            (name, Identity::load(&dir, now).unwrap())
        })
        .collect()
}
