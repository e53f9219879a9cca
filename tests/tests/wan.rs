//! The virtual WAN, and what quinn survives on it.
//!
//! `cargo test -p distributary-tests --release --test wan -- --nocapture` prints what each cell of
//! the matrix did.

#[cfg(test)]
#[path = "wan/matrix.rs"]
mod matrix;
#[cfg(test)]
#[path = "wan/network.rs"]
mod network;
#[cfg(test)]
#[path = "wan/traffic.rs"]
mod traffic;
