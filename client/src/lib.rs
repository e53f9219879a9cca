//! The client SDK: connect to a base, push file sets, watch jobs, ask about them.
//!
//! [`Client::connect`] finds the base and shows it the client's identity. [`Client::push`]
//! makes a job and feeds it in the background; the [`Push`] that it returns is a stream of
//! the job's events. A connection that breaks is made again and the push goes on where the
//! base has it durable. A push under the name of an open job of the same client whose
//! publisher is gone goes on with that job, once the source was found to be what it was.

mod connect;
pub mod cut;
mod differ;
mod feed;
mod live;
mod push;
mod resume;
mod session;
pub mod tree;
mod watch;

pub use connect::{ConnectError, ConnectOptions};
pub use differ::Difference;
pub use live::{FLUSH_EVERY, LiveWriter};
pub use push::{Push, PushError};
pub use session::{AskError, Client};
pub use watch::Watch;
