//! What the demo pushes: the PATHs that it is given, or content that it makes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use shared::manifest::ObjectKind;

use crate::args::DemoArgs;
use crate::exit::Failure;

use super::Source;
use super::compare::Object;
use super::folder::WorkFolder;

/// Prepares the source for `nodes` nodes; says beforehand if the disk is too small.
pub(super) async fn prepare(
    args: &DemoArgs,
    folder: &WorkFolder,
    nodes: u16,
) -> Result<Source, Failure> {
    // The base and every node keep a copy.
    let copies = u64::from(nodes) + 1;
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
    Ok(Source { paths, size: plan.size(), objects })
}

/// Bytes that do not repeat: a counter through SplitMix64's mixing steps.
fn make_content(path: &Path, size: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut left = size;
    let mut counter = 0u64;
    while left > 0 {
        counter = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = counter;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bytes = (word ^ (word >> 31)).to_le_bytes();
        let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        out.write_all(bytes.get(..take).unwrap_or(&bytes))?;
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
