//! What is said on the wire and what is decided, without I/O.
//!
//! Nothing here reads a clock, draws a random number, opens a file or a socket, or waits:
//! time and chance are arguments, payload bytes are moved by others.
//!
//! A module belongs here if two roles compile against it and it is pure.

pub mod budget;
pub mod chunk_set;
pub mod congestion;
pub mod control;
pub mod id;
pub mod job;
pub mod label;
pub mod limit;
pub mod manifest;
pub mod neighbourhood;
pub mod pacer;
pub mod rate;
pub mod relay;
pub mod seal;
pub mod stripe_set;
pub mod table;
pub mod time;
pub mod turns;
pub mod uplink;
pub mod view;
pub mod wire;
