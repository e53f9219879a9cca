//! The manifest: the metadata of a job's log, in order, cut into signed and chained pages.

mod chain;
mod name;
mod page;
mod recut;

pub use chain::{ChainError, Manifest, ObjectState, PageSummary};
pub use name::{ObjectNameError, check_object_name};
pub use page::{Attributes, Entry, ObjectKind, Page, PageBytes, Slice};
pub use recut::{Cut, Cuts, Recut};
