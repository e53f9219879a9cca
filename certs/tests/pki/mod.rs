//! An authority in a temporary folder and identities of it, at a fixed time.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use certs::{Authority, Identity, Request};
use shared::id::{Name, Role};

/// The time at which everything is issued.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Pki {
    pub(crate) authority: Authority,
    pub(crate) dir: tempfile::TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::init(&dir.path().join("pki"), now()).unwrap();
        Self { authority, dir }
    }

    /// Issues into a folder called after the name.
    pub(crate) fn write(&self, request: &Request) -> PathBuf {
        let out = self.dir.path().join(request.name.as_str());
        self.authority.issue(request, now()).unwrap().write(&out).unwrap();
        out
    }

    pub(crate) fn identity(&self, role: Role, name: &str) -> Identity {
        Identity::load(&self.write(&request(role, name)), now()).unwrap()
    }
}

/// The plainest request: an hour, no labels, no hosts.
pub(crate) fn request(role: Role, name: &str) -> Request {
    Request {
        role,
        name: Name::new(name).unwrap(),
        labels: [].into(),
        hosts: Vec::new(),
        valid_for: HOUR,
    }
}
