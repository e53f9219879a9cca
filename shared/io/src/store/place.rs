//! Final names: an object gets its own in the order of the log, once all before it is durable.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use shared::manifest::{Attributes, Entry, ObjectKind};

use super::folder::{Files, is_file, size};
use super::job_store::Place;
use super::root::Handle;
use super::{JobStore, PageView, StoreError};

/// How far the log has been followed.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    page: u32,
    entry: usize,
    chunk: u64,
    /// Objects opened.
    pub(super) opened: u32,
    /// Those that are not closed: at most as many as the manifest allows.
    pub(super) open: BTreeMap<u32, (String, Attributes)>,
    /// Whether the end has been passed: all objects have their names.
    pub(super) ended: bool,
}

impl JobStore {
    /// Follows the log as far as it is durable and gives the objects that it closes their
    /// names; says whether it has passed the end. Can be repeated after a crash.
    pub(super) fn place(&self) -> Result<bool, StoreError> {
        let (pages, head) = {
            let state = self.open_state()?;
            (state.pages_durable, state.durable.head())
        };
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let placed = self.place_pages(&mut cursor, pages, head);
        let (named, ended) = (position(cursor.page, cursor.entry), cursor.ended);
        drop(cursor);
        if self.named.swap(named, Ordering::Release) != named {
            self.note_change();
        }
        placed.map(|()| ended)
    }

    /// Whether the entry at `entry` of `page` has been followed: an object that it closes has its
    /// name.
    pub(super) fn is_placed(&self, page: u32, entry: usize) -> bool {
        position(page, entry) < self.named.load(Ordering::Acquire)
    }

    fn place_pages(&self, cursor: &mut Cursor, pages: u32, head: u64) -> Result<(), StoreError> {
        while let Some(page) = self.next_page(cursor.page).filter(|page| *page < pages) {
            let view = self.decoded(page)?;
            if cursor.entry == 0 || page != cursor.page {
                cursor.page = page;
                cursor.entry = 0;
                cursor.chunk = view.page().first_chunk;
            }
            if !self.place_page(cursor, &view, head)? {
                break;
            }
            cursor.page += 1;
            cursor.entry = 0;
        }
        Ok(())
    }

    /// Says whether the page is done with.
    fn place_page(
        &self,
        cursor: &mut Cursor,
        view: &PageView,
        head: u64,
    ) -> Result<bool, StoreError> {
        while let Some(entry) = view.page().entries.get(cursor.entry) {
            match entry {
                Entry::Chunk { .. } if cursor.chunk >= head => return Ok(false),
                Entry::Chunk { .. } => cursor.chunk += 1,
                Entry::Open { object, name, attributes } => {
                    cursor.opened = object + 1;
                    cursor.open.insert(*object, (name.clone(), *attributes));
                }
                Entry::Close { object, len, .. } => {
                    if let (Some((name, attributes)), Place::Files(files)) =
                        (cursor.open.get(object), &self.place)
                    {
                        self.place_object(files, *object, name, attributes, *len)?;
                    }
                    cursor.open.remove(object);
                }
                Entry::Sync { .. } | Entry::Recut { .. } => {}
                Entry::End { .. } => {
                    if let Place::Files(files) = &self.place {
                        self.date_directories(files)?;
                    }
                    cursor.ended = true;
                }
            }
            cursor.entry += 1;
        }
        Ok(true)
    }

    fn place_object(
        &self,
        files: &Files,
        object: u32,
        name: &str,
        attributes: &Attributes,
        len: u64,
    ) -> Result<(), StoreError> {
        if attributes.kind == ObjectKind::Live {
            self.end_live(files, object, (name, attributes), len)?;
        } else if attributes.kind == ObjectKind::Directory {
            files.make_directory(name)?;
        } else {
            let mode = match files.part_stat(object)? {
                Some(part) if is_file(&part) => {
                    self.check_part(files, object, name, (size(&part), len))?;
                    part.st_mode
                }
                Some(_) => return Err(in_the_way(files, object, name)),
                None if self.is_there(files, name, attributes, len)? => return Ok(()),
                None if len > 0 => {
                    let path = files.part_path(object);
                    return Err(StoreError::Lost { name: name.to_owned(), path });
                }
                // An empty file: nothing was ever written to it.
                None => {
                    drop(files.make_part(object)?);
                    files.part_stat(object)?.map_or(0, |part| part.st_mode)
                }
            };
            files.dress_part(object, mode, attributes)?;
            // A program that is open for writing cannot be run.
            self.root.forget_handle((self.serial, object, Handle::Write));
            files.publish(object, name)?;
        }
        self.state().placed.add(name);
        Ok(())
    }

    /// The part may be longer than its object if it is left from an object of a page that
    /// was lost, and never shorter.
    fn check_part(
        &self,
        files: &Files,
        object: u32,
        name: &str,
        (found, len): (u64, u64),
    ) -> Result<(), StoreError> {
        if found < len {
            let path = files.part_path(object);
            return Err(StoreError::Lost { name: name.to_owned(), path });
        }
        if found > len { files.cut_part(object, len) } else { Ok(()) }
    }

    /// Whether the object has its name already, from before a crash.
    fn is_there(
        &self,
        files: &Files,
        name: &str,
        attributes: &Attributes,
        len: u64,
    ) -> Result<bool, StoreError> {
        let Some(stat) = files.file_stat(name)? else {
            return Ok(false);
        };
        if !is_file(&stat) || size(&stat) != len {
            return Ok(false);
        }
        let stands = (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0));
        if attributes.modified.is_some_and(|modified| modified != stands) {
            files.set_modified(name, attributes.modified)?;
            self.state().placed.add(name);
        }
        Ok(true)
    }

    /// Gives directories their times, which the making of files in them has changed.
    fn date_directories(&self, files: &Files) -> Result<(), StoreError> {
        let mut from = 0;
        loop {
            let page = self.state().index.next_directory_page(from);
            let Some(page) = page else { return Ok(()) };
            for entry in &self.decoded(page)?.page().entries {
                let Entry::Open { name, attributes, .. } = entry else {
                    continue;
                };
                if attributes.kind == ObjectKind::Directory {
                    files.set_modified(name, attributes.modified)?;
                    self.state().placed.add(name);
                }
            }
            from = page + 1;
        }
    }
}

/// The place of an entry in the log, as one number; a page has far fewer than 2^32 entries.
fn position(page: u32, entry: usize) -> u64 {
    u64::from(page) << 32 | u64::try_from(entry).unwrap_or(u64::MAX).min(u64::from(u32::MAX))
}

fn in_the_way(files: &Files, object: u32, name: &str) -> StoreError {
    StoreError::InTheWay { name: name.to_owned(), path: files.part_path(object) }
}
