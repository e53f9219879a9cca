//! Isolation: what a bad peer or job costs the others, and whether caps are kept, with the product's own links, engines and
//! byte movers in the virtual WAN.
//!
//! `cargo test -p distributary-tests --release --test isolation -- --nocapture` prints what each
//! pair did.
//!
//! Time is virtual, so work of the CPU and of the disk takes none: what is measured is what jobs
//! and peers cost each other through windows, queues, credit, locks that are held over a wait,
//! and timers. Content is kept in memory and becomes durable at the product's intervals.

#[cfg(test)]
#[path = "isolation/caps.rs"]
mod caps;
#[cfg(test)]
#[path = "isolation/cases.rs"]
mod cases;
#[cfg(test)]
#[path = "isolation/mesh.rs"]
mod mesh;
