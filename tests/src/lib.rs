//! The lab of Distributary: a link model, a virtual WAN that carries real quinn and rustls, and
//! the tests that span several crates.

pub mod link;
pub mod sim;
pub mod wan;
