//! The client SDK: connect to a base, push file sets, watch jobs, ask about them.
//!
//! [`Client::connect`] finds the base and shows it the client's identity. [`Client::push`]
//! makes a job and feeds it in the background; the [`Push`] that it returns is a stream of
//! the job's events. A connection that breaks is made again and the push goes on where the
//! base has it durable.

mod connect;
pub mod cut;
mod feed;
mod live;
mod push;
mod session;
pub mod tree;
mod watch;

pub use connect::{ConnectError, ConnectOptions};
pub use live::{FLUSH_EVERY, LiveWriter};
pub use push::{Push, PushError};
pub use session::{AskError, Client};
pub use watch::Watch;
