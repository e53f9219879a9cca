//! Logging: to standard error, as text on a terminal and as JSON otherwise.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// What a service logs unless told otherwise.
const ROLE_LEVEL: &str = "info";
/// What a command logs unless told otherwise: its results and errors are printed anyway.
const COMMAND_LEVEL: &str = "error";

/// Starts logging at `level`, else at what RUST_LOG says, else at the default.
///
/// # Errors
/// [`Failure`] if the level or filter does not parse.
pub(crate) fn start(level: Option<&str>, is_role: bool) -> Result<(), Failure> {
    let default = if is_role { ROLE_LEVEL } else { COMMAND_LEVEL };
    let from_variable = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let (source, text) = match (level, &from_variable) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(text)) if !text.is_empty() => (EnvFilter::DEFAULT_ENV, text.as_str()),
        _ => ("the default level", default),
    };
    let filter = EnvFilter::builder().parse(text).map_err(|error| {
        let known = "error, warn, info, debug, trace or a filter such as quinn=debug";
        Failure::usage(format!("{source} {text:?} is not a level ({error}); use {known}"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second start in one process, which only tests make, keeps the first.
    let _ = if io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    Ok(())
}
