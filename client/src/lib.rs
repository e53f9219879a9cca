//! The client SDK: connect to a base, push files or a live object, watch jobs, ask about them.
//!
//! ```no_run
//! use distributary_client::{Client, ConnectOptions, Dimensions, EventBody, tree};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! // What `distributary certs issue --role client` has written, and where the base listens.
//! let options = ConnectOptions::load("hub:7400", "id/studio".as_ref())?;
//! let client = Client::connect(options).await?;
//!
//! // Everything that cannot be pushed is refused here, before anything is sent.
//! let plan = tree::plan(&["photos"], false)?;
//! let dimensions = Dimensions { name: Some("photos-1".parse()?), ..Dimensions::default() };
//! let mut push = client.push(plan, dimensions).await?;
//! while let Some(event) = push.next().await? {
//!     if let EventBody::Closed(job) = event.body {
//!         assert!(job.state.is_closed());
//!     }
//! }
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! * [`Client::connect`] finds the base and shows it the client's identity. A connection that
//!   breaks is made again by itself until the [`Client`] is closed or dropped.
//! * [`Client::push`] makes a job of files and feeds it in the background, and
//!   [`Client::push_live`] gives a [`LiveWriter`], which is an [`AsyncWrite`](tokio::io::AsyncWrite):
//!   mark sync points in it, and finish it. [`Dimensions`] say to which nodes, until when and
//!   how; their default is all nodes.
//! * The [`Push`] that both return tells the job's events, the last of which is
//!   [`EventBody::Closed`]: one by one with [`Push::next`], or as a [`Stream`](futures_core::Stream)
//!   with [`Push::events`]. Dropping it stops the feeding and leaves the job.
//! * A push under the name of an open job of the same client whose publisher is gone goes on with
//!   that job, once the source was found to be what it was.
//! * [`Client::jobs`], [`Client::job`], [`Client::watch`], [`Client::cancel`], [`Client::remove`]
//!   and [`Client::nodes`] are what the commands `job` and `nodes` do.
//!
//! Every method that waits may be dropped while it does; what that leaves behind is said where it
//! matters. `client/examples` has two programs that run.

mod connect;
pub mod cut;
mod differ;
mod events;
mod feed;
mod live;
mod push;
mod replay;
mod resume;
mod session;
pub mod tree;
mod watch;

pub use connect::{ConnectError, ConnectOptions, PATIENCE};
pub use differ::Difference;
pub use events::Events;
pub use live::{FLUSH_EVERY, LiveWriter};
pub use push::{Push, PushError};
pub use session::{AskError, Client};
pub use watch::Watch;

pub use certs::{Identity, IdentityError};
pub use shared::id::{JobId, Name};
pub use shared::job::{Dimensions, JobObject, Keep, Kind, Quorum, Selector};
pub use shared::view::{
    Event, EventBody, JobNodeView, JobState, JobView, NodeInfo, NodeJobState, NodeProgress,
    NodeState, SourceView,
};
pub use shared::wire::request::{JobRef, Refusal, RefusalKind};
pub use shared_io::transport::Congestion;
