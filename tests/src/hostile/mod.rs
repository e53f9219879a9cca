//! The decoders under hostile bytes: for each a function that takes any bytes and panics if
//! what is promised of the decoder does not hold.
//!
//! libFuzzer calls these functions (`tests/fuzz`), and `tests/tests/hostile.rs` replays the
//! inputs that it found (`tests/fuzz/corpus`) with every run of the tests. What they assert:
//!
//! * what is read of any bytes, written again and read again, is the same;
//! * it keeps to the limits of [`shared::limit`];
//! * reading sets no more memory aside than the length of the input allows, if [`memory`] is
//!   the process's allocator;
//! * a manifest has neither holes nor overlaps, and no two objects of one name;
//! * a store takes up nothing that its journal does not vouch for.
//!
//! None of them knows the variants of what it reads, so that a new one is covered by itself.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a property that does not hold ends the run"
)]

mod control;
mod input;
mod job;
mod ledger;
pub mod memory;
mod page;
mod record;
mod request;
mod store;

/// A decoder and what is asserted of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the fuzz target and of its folder of inputs.
    pub name: &'static str,
    /// Feeds it with bytes.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 8] = [
    Target { name: "control_stream", run: control::stream },
    Target { name: "datagram", run: control::datagram },
    Target { name: "request", run: request::run },
    Target { name: "job_stream", run: record::run },
    Target { name: "manifest", run: page::run },
    Target { name: "job_object", run: job::run },
    Target { name: "ledger", run: ledger::run },
    Target { name: "recovery", run: store::run },
];

/// The target with a name.
pub fn target(name: &str) -> Target {
    let found = TARGETS.into_iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("there is no fuzz target {name:?}"))
}
