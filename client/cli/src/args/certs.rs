//! `certs init` and `certs issue`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use shared::id::{Name, Role};

use crate::units;

/// Make an authority and identities.
#[derive(Debug, Args)]
pub(crate) struct CertsArgs {
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make a certificate authority. Its key signs every identity: keep it safe.
    Init {
        /// The folder to make; it must be new or empty.
        #[arg(long, value_name = "PKI")]
        dir: PathBuf,
    },
    /// Issue the identity of a base, node, client or operator.
    Issue(IssueArgs),
}

/// Issue an identity.
#[derive(Debug, Args)]
pub(crate) struct IssueArgs {
    /// The folder of the authority.
    #[arg(long, value_name = "PKI")]
    pub(crate) dir: PathBuf,

    /// base, node, client or operator.
    #[arg(long)]
    pub(crate) role: Role,

    /// Its name: a-z, 0-9, '.', '_' and '-'.
    #[arg(long)]
    pub(crate) name: Name,

    /// A label of a node, for --to; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = shared::label::parse)]
    pub(crate) label: Vec<(String, String)>,

    /// A host name or address to write into the certificate; may be repeated. Not needed
    /// among our own roles.
    #[arg(long, value_name = "NAME-OR-IP")]
    pub(crate) host: Vec<String>,

    /// How long it is valid.
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = units::time)]
    pub(crate) valid_for: Duration,

    /// The folder to write ca.pem, cert.pem and key.pem into.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}
