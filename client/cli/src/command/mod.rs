//! What each command does, one file each.

pub(crate) mod certs;
pub(crate) mod completions;
pub(crate) mod job;
pub(crate) mod nodes;
pub(crate) mod push;
pub(crate) mod role;
