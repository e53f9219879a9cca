//! The lab of Distributary: a link model, a virtual WAN that carries real quinn and rustls, the
//! simulator, hostile bytes, and the tests that span several crates.

pub mod figures;
pub mod fleet;
pub mod flows;
pub mod hostile;
pub mod link;
pub mod scenario;
pub mod sim;
pub mod swarm;
pub mod wan;
