//! The `distributary` command: one binary for every role and every task.
//!
//! A module belongs here if it reads the command line or prints; what a command does beyond
//! that is the work of the crates below.

mod args;
mod command;
mod config;
mod demo;
mod exit;
mod feeders;
mod follow;
mod json;
mod log;
mod output;
mod pipe;
mod progress;
mod session;
mod stop;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Command;
use exit::{Exit, Failure};

/// glibc gives every thread an arena of its own, and what one thread has allocated and another
/// one frees stays there: a role that moves chunks between threads grows with what it has moved.
/// This one is built with one arena (`.cargo/config.toml`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let exit = match run(std::env::args_os().collect()) {
        Ok(exit) => exit,
        Err(failure) => failure.report(),
    };
    exit.into()
}

fn run(arguments: Vec<OsString>) -> Result<Exit, Failure> {
    let cli = match config::parse(arguments)? {
        config::Parsed::Cli(cli) => cli,
        config::Parsed::Answered(exit) => return Ok(exit),
    };
    log::start(cli.log_level.as_deref(), cli.command.is_role())?;
    match cli.command {
        Command::Certs(certs) => command::certs::run(certs),
        Command::Push(push) => command::push::run(push),
        Command::Job(job) => command::job::run(job),
        Command::Nodes(nodes) => command::nodes::run(nodes),
        Command::Completions { shell } => command::completions::run(shell),
        Command::Base(base) => command::role::base(base),
        Command::Node(node) => command::role::node(node),
        Command::Demo(demo) => command::role::demo(demo),
    }
}
