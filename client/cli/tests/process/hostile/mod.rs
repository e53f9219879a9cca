//! Everything that must be refused: one table of named inputs, and for each kind of input how it
//! is put to real processes.
//!
//! A case passes if it ends as promised and the complaint has the word of its row. After the
//! cases of a kind the base has no job that a refused command made, and the node no folder.

mod command;
mod damage;
mod flood;
mod forged;
mod impostor;
mod peer;
mod source;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use certs::Identity;
use shared::wire::code::Code;
use shared::wire::request::RefusalKind;

use table::CASES;

/// A hostile input.
pub(crate) struct Case {
    /// Its name, which no other has.
    pub(super) name: &'static str,
    /// What is done.
    pub(super) what: What,
    /// How it ends.
    pub(super) ends: Ends,
    /// What the complaint says.
    pub(super) says: &'static str,
}

/// What is done. `{words}` of a command line stand for paths and addresses of the fleet; see
/// [`command`].
pub(crate) enum What {
    /// A command line, with variables of the environment.
    Line(&'static [(&'static str, &'static str)], &'static [&'static str]),
    /// `push file` with more arguments.
    Push(&'static [&'static str]),
    /// `push file` with a configuration file.
    Config(&'static str),
    /// A push of what is made in an empty folder.
    Source(fn(&Path) -> Vec<std::ffi::OsString>),
    /// A push of a file to which something is done while it is under way.
    Changing(fn(&Path)),
    /// `push file` with an identity to which something is done first.
    Identity(fn(&Path, &Path)),
    /// A data folder of the base or the node to which something is done before a start.
    Folder(damage::Role, fn(&Path)),
    /// What a peer with a valid certificate sends to the base.
    Peer(peer::Who, peer::Sends),
    /// What a base sends to a node.
    Base(impostor::Sends),
}

/// How a case ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The process ends with this code.
    Exit(i32),
    /// The role serves all the same, and its log says so.
    Serves,
    /// The connection is closed with this code.
    Closed(Code),
    /// The stream is stopped with this code; the connection goes on.
    Stopped(Code),
    /// The request is answered so; the connection goes on.
    Answered(RefusalKind),
    /// Nothing comes of it; the connection goes on.
    Nothing,
}

#[test]
fn the_table_has_150_inputs_and_no_name_twice() {
    let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len());
    assert!(CASES.len() >= 150, "{}", CASES.len());
}

/// The failures of cases, told all together.
#[derive(Default)]
pub(crate) struct Verdicts(Vec<String>);

impl Verdicts {
    pub(super) fn judge(&mut self, case: &Case, ends: Result<Ends, String>, text: &str) {
        match ends {
            Ok(ends) if ends == case.ends && text.contains(case.says) => {}
            found => self.0.push(format!(
                "{}: expected {:?} and {:?}, found {found:?} and {text:?}",
                case.name, case.ends, case.says
            )),
        }
    }

    #[track_caller]
    pub(super) fn end(self) {
        assert!(self.0.is_empty(), "{} cases:\n{}", self.0.len(), self.0.join("\n"));
    }
}

pub(super) fn load(dir: &Path) -> Identity {
    Identity::load(dir, std::time::SystemTime::UNIX_EPOCH + now()).unwrap()
}

fn now() -> std::time::Duration {
    std::time::Duration::from_millis(shared_io::clock::Clock::wall_ms())
}
