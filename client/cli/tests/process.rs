//! The promises of the command line, kept by real processes: a base, nodes and clients on
//! loopback, seen only through what they print, write, serve and exit with.

#[cfg(test)]
#[path = "process/account.rs"]
mod account;
#[cfg(test)]
#[path = "process/among.rs"]
mod among;
#[cfg(test)]
#[path = "process/content.rs"]
mod content;
#[cfg(test)]
#[path = "process/demo.rs"]
mod demo;
#[cfg(test)]
#[path = "process/fields.rs"]
mod fields;
#[cfg(test)]
#[path = "process/fleet.rs"]
mod fleet;
#[cfg(test)]
#[path = "process/hostile/mod.rs"]
mod hostile;
#[cfg(test)]
#[path = "process/http.rs"]
mod http;
#[cfg(test)]
#[path = "process/journal.rs"]
mod journal;
#[cfg(test)]
#[path = "process/kills.rs"]
mod kills;
#[cfg(test)]
#[path = "process/live.rs"]
mod live;
#[cfg(test)]
#[path = "process/memory.rs"]
mod memory;
#[cfg(test)]
#[path = "process/missing.rs"]
mod missing;
#[cfg(test)]
#[path = "process/refusals.rs"]
mod refusals;
#[cfg(test)]
#[path = "process/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "process/resume.rs"]
mod resume;
#[cfg(test)]
#[path = "process/sdk.rs"]
mod sdk;
#[cfg(test)]
#[path = "process/tree.rs"]
mod tree;
