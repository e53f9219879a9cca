//! `nodes`, `nodes forget` and `nodes label`.

use clap::{Args, Subcommand};
use shared::id::Name;

use super::Contact;

/// See, forget and label nodes. Without a command: list them.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<NodesCommand>,

    #[command(flatten)]
    pub(crate) contact: Contact,

    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub(crate) enum NodesCommand {
    /// Forget a node: it is no part of `all` any more.
    Forget {
        /// The node.
        name: Name,
    },
    /// Label a node beyond its certificate.
    Label {
        /// The node.
        name: Name,
        /// The labels to set.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = shared::label::parse)]
        labels: Vec<(String, String)>,
    },
}
