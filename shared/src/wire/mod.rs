//! What travels between peers, byte by byte: `docs/WIRE.md` is the specification.

pub mod code;
pub mod codec;
pub mod frame;
pub mod message;
pub mod record;
pub mod request;
pub mod rights;
