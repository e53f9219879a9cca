//! A disk without room, for tests: what is written of an object goes to `/dev/full`.

use std::fs::OpenOptions;
use std::sync::Arc;

use super::JobStore;
use super::root::Handle;

/// From now on there is no room for `object`.
pub(crate) fn take(store: &JobStore, object: u32) {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    store.root.cache_handle((store.serial, object, Handle::Write), &Arc::new(full));
}

/// From now on there is no room for more of what can be seen of the live `object`.
pub(crate) fn take_shown(store: &JobStore, object: u32) {
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    store.root.cache_handle((store.serial, object, Handle::Shown), &Arc::new(full));
}

/// There is room for `object` again.
pub(crate) fn give(store: &JobStore, object: u32) {
    store.root.forget_handle((store.serial, object, Handle::Write));
    store.root.forget_handle((store.serial, object, Handle::Shown));
}
