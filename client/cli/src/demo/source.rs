//! What the demo pushes: the PATHs that it is given, or content that it makes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use shared::manifest::ObjectKind;

use crate::args::DemoArgs;
use crate::exit::Failure;

use super::compare::Object;
use super::folder::WorkFolder;
use super::{Pushed, Source, live};

/// Prepares the source for `nodes` nodes; says beforehand if the disk is too small.
pub(super) async fn prepare(
    args: &DemoArgs,
    folder: &WorkFolder,
    nodes: u16,
) -> Result<Source, Failure> {
    // The base and every node keep a copy.
    let copies = u64::from(nodes) + 1;
    if let Some(duration) = args.live {
        return prepare_live(args, folder, duration, copies);
    }
    let paths = if args.paths.is_empty() {
        folder.check_room(args.size, 1, copies + 1)?;
        let path = folder.path().join("demo.bin");
        let (made, size) = (path.clone(), args.size);
        let make = tokio::task::spawn_blocking(move || make_content(&made, size)).await;
        let failed = |error: String| {
            Failure::failed(format!("cannot make content in {}: {error}", path.display()))
        };
        make.map_err(|error| failed(error.to_string()))?.map_err(|e| failed(e.to_string()))?;
        vec![path]
    } else {
        args.paths.clone()
    };
    let plan = client::tree::plan(&paths, true)?;
    folder.check_room(plan.size(), plan.len() as u64, copies)?;
    let objects = plan.entries().map(|entry| {
        let object = match entry.attributes.kind {
            ObjectKind::Directory => Object::Directory,
            ObjectKind::File | ObjectKind::Live => Object::File(entry.path()),
        };
        (entry.name.to_owned(), object)
    });
    let objects: BTreeMap<String, Object> = objects.collect();
    Ok(Source { pushed: Pushed::Files(paths), size: plan.size(), objects })
}

/// A stream is made while it is pushed; what was pushed is kept in the folder.
fn prepare_live(
    args: &DemoArgs,
    folder: &WorkFolder,
    duration: Duration,
    copies: u64,
) -> Result<Source, Failure> {
    if !args.paths.is_empty() {
        let text = "demo --live makes its own stream; leave the PATHs or --live out";
        return Err(Failure::usage(text.to_owned()));
    }
    let size = duration.as_secs().saturating_add(1).saturating_mul(live::BYTES_PER_SECOND);
    folder.check_room(size, 1, copies + 1)?;
    let kept = folder.path().join("demo.stream");
    let objects = BTreeMap::from([(live::NAME.to_owned(), Object::File(kept.clone()))]);
    Ok(Source { pushed: Pushed::Live { duration, kept }, size, objects })
}

/// Bytes that do not repeat: a counter through SplitMix64's mixing steps.
#[derive(Debug, Default)]
pub(super) struct Made {
    counter: u64,
}

impl Made {
    /// Fills `bytes` with the next ones; its length should be a multiple of 8.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for place in bytes.chunks_mut(8) {
            self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.counter;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = (word ^ (word >> 31)).to_le_bytes();
            place.copy_from_slice(word.get(..place.len()).unwrap_or(&word));
        }
    }
}

fn make_content(path: &Path, size: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut made = Made::default();
    let mut buffer = vec![0; 1 << 16];
    let mut left = size;
    while left > 0 {
        let take = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let piece = buffer.get_mut(..take).unwrap_or_default();
        made.fill(piece);
        out.write_all(piece)?;
        left -= take as u64;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_content_has_its_size_and_does_not_repeat() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        make_content(&path, 100_003).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 100_003);
        let words: std::collections::BTreeSet<&[u8]> = bytes.chunks_exact(8).collect();
        assert_eq!(words.len(), 100_003 / 8);
    }
}
