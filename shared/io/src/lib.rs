//! quinn, tokio and the disk for the relay: the shell around the engine of `shared`.
//!
//! Payload moves here and nowhere else: from a job stream through [`intake`] into the
//! content store, from there through [`outlet`] into the job streams of others. What moves
//! when is decided by [`shared::relay`]; this crate carries it out.

pub mod access;
pub mod clock;
pub mod congestion;
pub mod content;
pub mod data_folder;
pub mod greet;
pub mod health;
pub mod intake;
pub mod job;
pub mod link;
pub mod neighbours;
pub mod outlet;
pub mod recent;
pub mod request;
mod send_budget;
mod shaped;
pub mod store;
mod stream_room;
pub mod telemetry;
pub mod transport;
mod turns;
