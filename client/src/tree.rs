//! Which files a push carries: what `cp -r PATH... files/` would make, or why it cannot be.
//!
//! A plan is made before anything is sent, so that everything that cannot be pushed is
//! refused first. It names each object once and is sorted by the bytes of the names; a
//! directory therefore always comes before its content.

mod clash;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use shared::limit;
use shared::manifest::{Attributes, ObjectKind, ObjectNameError};

/// Why a set of paths cannot be pushed. Each names the path.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// A PATH that does not exist.
    #[error("{path:?} does not exist")]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// A PATH that ends in `..` and so has no name of its own.
    #[error(
        "{path:?} ends in '..' and gives no name; write {path:?} with a '/' behind it to push the content"
    )]
    Parent {
        /// The path as given.
        path: PathBuf,
    },
    /// A PATH that ends in a slash and is no directory.
    #[error("{path:?} is not a directory; leave out what follows its name")]
    NotADirectory {
        /// The path without what follows.
        path: PathBuf,
    },
    /// A symbolic link, at the top or inside.
    #[error(
        "{path:?} is a symbolic link, which is not pushed; give what it points to, or remove it"
    )]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// Neither file nor directory.
    #[error("{path:?} is a {what}, which is not pushed; remove it or push what is beside it")]
    Special {
        /// The path.
        path: PathBuf,
        /// `device`, `socket`, `FIFO`.
        what: &'static str,
    },
    /// A name that is not UTF-8.
    #[error("the name {path:?} is not UTF-8, so it is not pushed; rename it")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A name that an object may not have.
    #[error("{path:?} cannot be pushed: {reason}; rename it")]
    Name {
        /// The path.
        path: PathBuf,
        /// What is wrong with the name.
        reason: ObjectNameError,
    },
    /// Two paths with one name.
    #[error("{first:?} and {second:?} would both become {name:?}; push one of them, or rename it")]
    Meet {
        /// The name in which they meet.
        name: String,
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Two names that are one name on systems that do not tell upper from lower case.
    #[error(
        "the names of {first:?} and {second:?} differ only in case; rename one, or push with --allow-case"
    )]
    Case {
        /// One of them.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Something that may not be read.
    #[error("cannot read {path:?}: {reason}")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// Something that was there a moment ago.
    #[error("{path:?} vanished while it was looked at; push again when nothing changes it")]
    Vanished {
        /// The path.
        path: PathBuf,
    },
    /// More files and directories than a job may have.
    #[error("more than {max} files and directories; push them as several jobs", max = limit::OBJECTS_MAX)]
    TooMany,
}

/// What a push carries: files and directories, sorted by name.
///
/// An object costs its name and 48 bytes, so 100,000 files take about 10 MB.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    roots: Vec<Root>,
    names: String,
    slots: Vec<Slot>,
    size: u64,
    files: u32,
}

/// Where a part of the plan comes from.
#[derive(Debug, Clone)]
struct Root {
    path: PathBuf,
    /// Bytes of an object's name that `path` stands for, with the slash behind them.
    strip: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    name_at: usize,
    size: u64,
    modified_s: i64,
    modified_ns: u32,
    root: u32,
    name_len: u16,
    directory: bool,
    executable: bool,
}

/// One file or directory of a plan.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The object's name: relative, `/` between its components.
    pub name: &'a str,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Kind, modification time and executable bit.
    pub attributes: Attributes,
    root: &'a Root,
}

impl Entry<'_> {
    /// Where the source is.
    pub fn path(&self) -> PathBuf {
        self.root.path_of(self.name)
    }
}

impl Root {
    fn path_of(&self, name: &str) -> PathBuf {
        match name.get(self.strip..) {
            Some(rest) if !rest.is_empty() => self.path.join(rest),
            _ => self.path.clone(),
        }
    }
}

impl Plan {
    /// Content bytes of all files.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Files, without the directories.
    pub const fn files(&self) -> u32 {
        self.files
    }

    /// Files and directories.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is neither file nor directory.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The entry at `index` in the order of names.
    pub fn entry(&self, index: usize) -> Option<Entry<'_>> {
        self.slots.get(index).and_then(|slot| self.view(slot))
    }

    /// All entries in the order of the bytes of their names.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> + '_ {
        self.slots.iter().filter_map(|slot| self.view(slot))
    }

    fn view(&self, slot: &Slot) -> Option<Entry<'_>> {
        let kind = if slot.directory { ObjectKind::Directory } else { ObjectKind::File };
        Some(Entry {
            name: name_of(&self.names, slot),
            size: slot.size,
            attributes: Attributes {
                kind,
                modified: Some((slot.modified_s, slot.modified_ns)),
                executable: slot.executable,
            },
            root: self.roots.get(usize::try_from(slot.root).ok()?)?,
        })
    }
}

fn name_of<'a>(names: &'a str, slot: &Slot) -> &'a str {
    let end = slot.name_at.saturating_add(usize::from(slot.name_len));
    names.get(slot.name_at..end).unwrap_or_default()
}

/// Looks at `paths` and everything below them: what `cp -r PATH... files/` would make.
///
/// A file gets its base name, a directory its own name and its tree; a path that ends in a
/// slash, and `.`, stand for the content alone. Nothing is read but names and metadata.
/// `allow_case` lets names pass that differ only in case.
///
/// # Errors
/// [`TreeError`] for the first thing found that cannot be pushed.
pub fn plan<P: AsRef<Path>>(paths: &[P], allow_case: bool) -> Result<Plan, TreeError> {
    let mut plan = Plan::default();
    for path in paths {
        walk::add(&mut plan, path.as_ref())?;
    }
    let Plan { names, slots, .. } = &mut plan;
    slots.sort_by(|a, b| name_of(names, a).cmp(name_of(names, b)));
    clash::refuse_meeting(&plan)?;
    if !allow_case {
        clash::refuse_case(&plan)?;
    }
    Ok(plan)
}

#[cfg(test)]
mod tests;
