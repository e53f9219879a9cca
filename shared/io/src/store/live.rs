//! Live objects at a node: a file under its final name from the first byte on, which holds the
//! contiguous verified prefix and nothing else.
//!
//! What arrives ahead of the prefix lies in the object's part until the gap before it closes.
//! The part is scratch: it is never flushed, what lies in it does not count as durable, and a
//! start throws it away. So the file alone tells what is durable, and a crash can only leave it
//! longer than what the journal vouches for.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};

use shared::manifest::{Attributes, Entry, ObjectKind, Page, Slice};

use super::audit::LiveExtent;
use super::folder::{Files, is_file, size};
use super::job_store::Place;
use super::root::Handle;
use super::{JobStore, StoreError};

/// Bytes that are copied at a time when a gap closes: the largest chunk.
const COPY_LEN: usize = shared::limit::CHUNK_LEN_MAX as usize;

/// Sync points of a live object that are remembered: those ahead of what can be seen, and one.
const MARKS_MAX: usize = 256;

/// A live object that has not ended, or whose end is not durable yet.
#[derive(Debug, Default)]
pub(super) struct LiveObject {
    pub(super) name: String,
    /// Length of the prefix that can be seen.
    pub(super) shown: u64,
    /// Length of what lies in the part, by offset and chunk.
    ahead: BTreeMap<(u64, u64), u32>,
    /// Chunks a slice of which has come to be seen, and that were not told of yet: what was to be
    /// moved with them found no room.
    released: Vec<u64>,
    /// Its length, once it is known to have ended.
    pub(super) closed: Option<u64>,
    /// Where readers may start.
    pub(super) marks: Marks,
}

/// The sync points of a live object that matter: the newest one that can be seen, and those ahead.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<u64>);

impl Marks {
    /// Takes note of a sync point behind all others; where the log is cut anew, it says older ones
    /// once more. If too many lie ahead, the one before it goes: who starts at it starts a little
    /// earlier.
    pub(super) fn add(&mut self, offset: u64, shown: u64) {
        if self.0.back().is_some_and(|last| *last >= offset) {
            return;
        }
        while self.0.get(1).is_some_and(|next| *next <= shown) {
            self.0.pop_front();
        }
        if self.0.len() >= MARKS_MAX {
            self.0.pop_back();
        }
        self.0.push_back(offset);
    }

    /// The newest one that is not beyond `shown`.
    pub(super) fn newest(&self, shown: u64) -> Option<u64> {
        self.0.iter().rev().find(|offset| **offset <= shown).copied()
    }
}

/// What came of writing a slice of a live object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Whether the slice lies ahead of the prefix: its chunk must not count as durable.
    pub(super) ahead: bool,
    /// Chunks a slice of which does not lie ahead any more, one entry for each slice.
    pub(super) released: Vec<u64>,
}

/// Appends `fresh` to what can be seen of `object`. If there is no room for all of it, none of it
/// stays.
fn show(file: &File, object: &mut LiveObject, fresh: &[u8], path: &Path) -> Result<(), StoreError> {
    if let Err(error) = file.write_all_at(fresh, object.shown) {
        // A file that cannot be cut back holds more of what is verified, no hole.
        let _longer = file.set_len(object.shown);
        return Err(StoreError::io("write", path)(error));
    }
    object.shown += fresh.len() as u64;
    Ok(())
}

impl JobStore {
    /// The length of a live object that can be seen, and whether that is all of it; `None` if
    /// the object is not live, or if its end is durable.
    pub(super) fn live_shown(&self, object: u32) -> Option<(u64, bool)> {
        let live = self.live();
        let object = live.get(&object)?;
        Some((object.shown, object.closed == Some(object.shown)))
    }

    /// The length of a live object that can be seen and the newest sync point in it; `None` as
    /// with [`Self::live_shown`].
    pub(super) fn live_standing(&self, object: u32) -> Option<(u64, Option<u64>)> {
        let live = self.live();
        let object = live.get(&object)?;
        Some((object.shown, object.marks.newest(object.shown)))
    }

    /// Makes the files of the live objects that `page` opens, and takes note of ends.
    pub(super) fn follow_live(&self, page: &Page) -> Result<(), StoreError> {
        let Place::Files(files) = &self.place else { return Ok(()) };
        let take_over = self.state().restarted;
        for entry in &page.entries {
            match entry {
                Entry::Open { object, name, attributes } if attributes.kind == ObjectKind::Live => {
                    let file = files.make_shown(name, take_over)?;
                    let live = LiveObject { name: name.clone(), ..LiveObject::default() };
                    self.live().insert(*object, live);
                    self.root.cache_handle((self.serial, *object, Handle::Shown), &Arc::new(file));
                    self.state().unsynced.shown(name);
                }
                Entry::Close { object, len, .. } => {
                    if let Some(live) = self.live().get_mut(object) {
                        live.closed = Some(*len);
                    }
                }
                Entry::Sync { object, offset } => {
                    if let Some(live) = self.live().get_mut(object) {
                        live.marks.add(*offset, live.shown);
                    }
                }
                Entry::Open { .. }
                | Entry::Chunk { .. }
                | Entry::End { .. }
                | Entry::Recut { .. } => {}
            }
        }
        Ok(())
    }

    /// Takes up a live object after a start: what of its file is not durable is cut off.
    pub(super) fn restore_live(&self, object: u32, found: LiveExtent) -> Result<(), StoreError> {
        let LiveExtent { name, durable, closed, marks } = found;
        let Place::Files(files) = &self.place else { return Ok(()) };
        let there = files.file_stat(&name)?.is_some_and(|stat| is_file(&stat));
        let file = if there { files.shown(&name)? } else { files.make_shown(&name, false)? };
        file.set_len(durable).map_err(|error| StoreError::io("cut", &self.folder)(error))?;
        files.remove_part(object)?;
        let ahead = BTreeMap::new();
        let released = Vec::new();
        let live = LiveObject { name, shown: durable, ahead, released, closed, marks };
        self.live().insert(object, live);
        Ok(())
    }

    /// Writes a slice of `chunk` to its object if that is live; `None` if it is not.
    pub(super) fn put_live(
        &self,
        files: &Files,
        chunk: u64,
        slice: &Slice,
        piece: &[u8],
    ) -> Result<Option<Shown>, StoreError> {
        let mut live = self.live();
        let Some(object) = live.get_mut(&slice.object) else { return Ok(None) };
        if slice.offset > object.shown {
            let part = self.part_to_write(files, slice.object)?;
            part.write_all_at(piece, slice.offset)
                .map_err(|error| StoreError::io("write", &files.part_path(slice.object))(error))?;
            object.ahead.insert((slice.offset, chunk), slice.len);
            return Ok(Some(Shown { ahead: true, released: Vec::new() }));
        }
        // A long chunk may have bytes that came in short ones.
        let known = usize::try_from(object.shown - slice.offset).unwrap_or(usize::MAX);
        if let Some(fresh) = piece.get(known..).filter(|fresh| !fresh.is_empty()) {
            let file = self.shown_to_write(files, slice.object, &object.name)?;
            show(&file, object, fresh, &files.shown_path(&object.name))?;
        }
        self.close_gap(files, slice.object, object)?;
        Ok(Some(Shown { ahead: false, released: std::mem::take(&mut object.released) }))
    }

    /// Moves what lies right behind the prefix from the part to the file. What finds no room
    /// there stays, and is moved by the next call.
    fn close_gap(
        &self,
        files: &Files,
        number: u32,
        object: &mut LiveObject,
    ) -> Result<(), StoreError> {
        let next = |object: &LiveObject| {
            let (key, len) = object.ahead.first_key_value()?;
            (key.0 <= object.shown).then_some((*key, *len))
        };
        let Some(mut due) = next(object) else { return Ok(()) };
        let part = self.part_to_write(files, number)?;
        let failed = |error| StoreError::io("move", &files.part_path(number))(error);
        let file = self.shown_to_write(files, number, &object.name)?;
        let path = files.shown_path(&object.name);
        let mut buffer = Vec::new();
        loop {
            let ((offset, chunk), len) = due;
            let end = offset.saturating_add(u64::from(len));
            // A long and a short chunk may have the same bytes: what is shown stays.
            let fresh = usize::try_from(end.saturating_sub(object.shown)).unwrap_or(usize::MAX);
            buffer.resize(fresh.min(COPY_LEN), 0);
            part.read_exact_at(&mut buffer, object.shown).map_err(failed)?;
            show(&file, object, &buffer, &path)?;
            object.ahead.remove(&(offset, chunk));
            object.released.push(chunk);
            match next(object) {
                Some(next) => due = next,
                None => break,
            }
        }
        if object.ahead.is_empty() {
            part.set_len(0).map_err(failed)?;
        }
        Ok(())
    }

    /// Opens the bytes of a slice of a live object; `None` if the object is not live.
    pub(super) fn live_bytes(
        &self,
        files: &Files,
        slice: &Slice,
    ) -> Result<Option<Arc<File>>, StoreError> {
        let (name, is_shown) = {
            let live = self.live();
            let Some(object) = live.get(&slice.object) else { return Ok(None) };
            (object.name.clone(), slice.offset < object.shown)
        };
        if is_shown {
            self.shown_to_write(files, slice.object, &name).map(Some)
        } else {
            self.part_to_write(files, slice.object).map(Some)
        }
    }

    /// Flushes the file of `object` if that is live; says whether it is.
    pub(super) fn sync_live(&self, files: &Files, object: u32) -> Result<bool, StoreError> {
        let Some(name) = self.live().get(&object).map(|live| live.name.clone()) else {
            return Ok(false);
        };
        let file = self.shown_to_write(files, object, &name)?;
        file.sync_data()
            .map_err(|error| StoreError::io("flush", &files.shown_path(&name))(error))?;
        Ok(true)
    }

    /// The log has closed a live object, and all its bytes are durable.
    pub(super) fn end_live(
        &self,
        files: &Files,
        object: u32,
        (name, attributes): (&str, &Attributes),
        len: u64,
    ) -> Result<(), StoreError> {
        let found = files.file_stat(name)?.filter(is_file).map(|stat| size(&stat));
        if found != Some(len) {
            return Err(StoreError::Lost { name: name.to_owned(), path: files.shown_path(name) });
        }
        files.set_modified(name, attributes.modified)?;
        files.remove_part(object)?;
        self.root.forget_handle((self.serial, object, Handle::Shown));
        self.root.forget_handle((self.serial, object, Handle::Write));
        self.live().remove(&object);
        Ok(())
    }

    fn shown_to_write(
        &self,
        files: &Files,
        object: u32,
        name: &str,
    ) -> Result<Arc<File>, StoreError> {
        let key = (self.serial, object, Handle::Shown);
        if let Some(file) = self.root.cached_handle(key) {
            return Ok(file);
        }
        let file = Arc::new(files.shown(name)?);
        self.root.cache_handle(key, &file);
        Ok(file)
    }

    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<u32, LiveObject>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
