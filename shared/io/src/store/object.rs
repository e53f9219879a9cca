//! Objects as readers see them: looked up by name, opened, and followed while they grow.

use std::fs::File;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use shared::manifest::{Attributes, Entry, ObjectKind};
use shared::seal::Hash;

use super::folder::{is_file, size};
use super::job_store::{Place, read_one};
use super::name_index::NameIndex;
use super::{JobStore, PageView, StoreError};

/// What a reader may know of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectView {
    /// Its number in the job.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// What is kept beside its bytes.
    pub attributes: Attributes,
    /// Bytes that can be read.
    pub shown: u64,
    /// Its length and digest, once the log has closed it.
    pub closed: Option<(u64, Hash)>,
    /// How far it is.
    pub standing: Standing,
}

/// How far an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A file that is not whole, or a directory that was not made yet: nothing can be seen.
    Awaited,
    /// A live object that has not ended: more may follow.
    Growing {
        /// The newest place where a reader may start, if its publisher has marked any.
        sync: Option<u64>,
    },
    /// All of it can be seen.
    Whole,
}

/// The bytes of an object, open for reading.
#[derive(Debug)]
pub struct ObjectFile {
    store: Arc<JobStore>,
    number: u32,
    file: File,
}

impl JobStore {
    /// The object called `name`, if the log has opened it by now.
    ///
    /// # Errors
    /// [`StoreError::Removed`] or [`StoreError::Failed`] if nothing can be read any more, or as
    /// [`Self::read_page`].
    pub fn object(&self, name: &str) -> Result<Option<ObjectView>, StoreError> {
        let objects = self.open_state()?.index.objects();
        let names = self.root.names(self.serial);
        let mut index = names.lock().unwrap_or_else(PoisonError::into_inner);
        while index.objects() < objects && !index.is_full() {
            self.index_names(&mut index)?;
        }
        let (pages, mut number) = (index.pages(name), index.objects());
        drop(index);
        for page in pages {
            if let Some(found) = self.view_on(page, |_, opened| opened == name)?.pop() {
                return Ok(Some(found));
            }
        }
        while number < objects {
            let page = self.page_of_object(number)?;
            if let Some(found) = self.view_on(page, |_, opened| opened == name)?.pop() {
                return Ok(Some(found));
            }
            number += u32::try_from(opens(&*self.decoded(page)?).count()).unwrap_or(u32::MAX);
        }
        Ok(None)
    }

    /// The objects from number `from` on, as they were opened: at most `most`, and at least one
    /// if there is any.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub fn objects(&self, from: u32, most: usize) -> Result<Vec<ObjectView>, StoreError> {
        let objects = self.open_state()?.index.objects();
        let last = from.saturating_add(u32::try_from(most.max(1)).unwrap_or(u32::MAX));
        let (mut found, mut number) = (Vec::new(), from);
        while number < objects.min(last) {
            let page = self.page_of_object(number)?;
            let views = self.view_on(page, |number, _| (from..last).contains(&number))?;
            let Some(view) = views.last() else { break };
            number = view.number + 1;
            found.extend(views);
        }
        Ok(found)
    }

    /// How many objects the log has opened.
    pub fn object_count(&self) -> u32 {
        self.state().index.objects()
    }

    /// Content bytes and digest of the job, once the end of its log is here.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub fn end(&self) -> Result<Option<(u64, Hash)>, StoreError> {
        let state = self.open_state()?;
        let last = state.index.pages().checked_sub(1).filter(|_| state.index.ended());
        drop(state);
        let Some(last) = last else { return Ok(None) };
        Ok(self.decoded(last)?.page().entries.iter().find_map(|entry| match entry {
            Entry::End { content_len, digest } => Some((*content_len, *digest)),
            _ => None,
        }))
    }

    /// Opens the bytes of an object that can be seen, through directories and never through a
    /// link. `None` if it is a directory or cannot be seen.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if it is gone from the disk or another thing stands there.
    pub fn open_object(
        self: &Arc<Self>,
        view: &ObjectView,
    ) -> Result<Option<ObjectFile>, StoreError> {
        let Place::Files(files) = &self.place else { return Ok(None) };
        if view.attributes.kind == ObjectKind::Directory || view.standing == Standing::Awaited {
            return Ok(None);
        }
        let path = files.shown_path(&view.name);
        let lost = || StoreError::Lost { name: view.name.clone(), path: path.clone() };
        let file = files.file(&view.name)?.ok_or_else(lost)?;
        let stat = rustix::fs::fstat(&file).map_err(StoreError::io("look at", &path))?;
        if !is_file(&stat) || size(&stat) < view.shown {
            return Err(lost());
        }
        Ok(Some(ObjectFile { store: Arc::clone(self), number: view.number, file }))
    }

    fn index_names(&self, index: &mut NameIndex) -> Result<(), StoreError> {
        let page = self.page_of_object(index.objects())?;
        let view = self.decoded(page)?;
        index.add(page, opens(&view).map(|(_, name, _)| name));
        Ok(())
    }

    fn page_of_object(&self, object: u32) -> Result<u32, StoreError> {
        let page = self.state().index.page_of_object(object);
        page.ok_or(StoreError::NoObject(object))
    }

    /// The objects that `page` opens and that are `wanted` by number or name.
    fn view_on(
        &self,
        page: u32,
        wanted: impl Fn(u32, &str) -> bool,
    ) -> Result<Vec<ObjectView>, StoreError> {
        let view = self.decoded(page)?;
        opens(&view)
            .filter(|(number, name, _)| wanted(*number, name))
            .map(|(number, name, attributes)| self.view(page, number, name, attributes))
            .collect()
    }

    fn view(
        &self,
        opened_on: u32,
        number: u32,
        name: &str,
        attributes: Attributes,
    ) -> Result<ObjectView, StoreError> {
        // In this order: what is not live any more is closed.
        let growing = self.live_standing(number);
        let close = self.close_of(number, opened_on)?;
        let closed = close.map(|close| (close.len, close.digest));
        let is_placed = close.is_some_and(|close| self.is_placed(close.page, close.entry));
        let (shown, standing) = match (growing, closed) {
            (Some((shown, _)), Some((len, _))) if shown == len => (shown, Standing::Whole),
            (Some((shown, sync)), _) => (shown, Standing::Growing { sync }),
            (None, Some((len, _))) if is_placed => (len, Standing::Whole),
            (None, _) => (0, Standing::Awaited),
        };
        let name = name.to_owned();
        Ok(ObjectView { number, name, attributes, shown, closed, standing })
    }

    /// Where the log closes `object`, which `opened_on` opens, if it does.
    fn close_of(&self, object: u32, opened_on: u32) -> Result<Option<Close>, StoreError> {
        let mut from = opened_on;
        loop {
            let page = self.state().index.next_closing_page(from);
            let Some(page) = page else { return Ok(None) };
            let view = self.decoded(page)?;
            let closes = (0..).zip(&view.page().entries).find_map(|(entry, event)| match event {
                Entry::Close { object: closed, len, digest } if *closed == object => {
                    Some(Close { page, entry, len: *len, digest: *digest })
                }
                _ => None,
            });
            if closes.is_some() {
                return Ok(closes);
            }
            from = page + 1;
        }
    }
}

impl ObjectFile {
    /// How much of the object can be read, and whether that is all of it.
    ///
    /// # Errors
    /// [`StoreError::Removed`] or [`StoreError::Failed`] if nothing can be read any more.
    pub fn shown(&self) -> Result<(u64, bool), StoreError> {
        drop(self.store.open_state()?);
        if let Some(shown) = self.store.live_shown(self.number) {
            return Ok(shown);
        }
        // It has its final length.
        let metadata = self.file.metadata();
        let path = self.store.folder().join("files");
        Ok((metadata.map_err(StoreError::io("look at", &path))?.len(), true))
    }

    /// The `len` bytes at `offset`, which can be seen.
    ///
    /// # Errors
    /// As [`Self::shown`], and [`StoreError::Io`] if the disk does not give them.
    pub fn read(&self, offset: u64, len: u32) -> Result<Bytes, StoreError> {
        drop(self.store.open_state()?);
        let path = self.store.folder().join("files");
        read_one(&self.file, offset, len).map_err(|error| StoreError::io("read", &path)(error))
    }

    /// The store that it belongs to.
    pub const fn store(&self) -> &Arc<JobStore> {
        &self.store
    }
}

/// Where and how the log closes an object.
#[derive(Debug, Clone, Copy)]
struct Close {
    page: u32,
    entry: usize,
    len: u64,
    digest: Hash,
}

/// The objects that a page opens.
fn opens(view: &PageView) -> impl Iterator<Item = (u32, &str, Attributes)> {
    view.page().entries.iter().filter_map(|entry| match entry {
        Entry::Open { object, name, attributes } => Some((*object, name.as_str(), *attributes)),
        _ => None,
    })
}
