//! The comparison: every node's files against the source, by a hash of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::exit::Failure;

use super::Source;

/// An object of the source.
#[derive(Debug, Clone)]
pub(super) enum Object {
    Directory,
    /// A file, and where it is.
    File(PathBuf),
}

/// What a node has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal {
        /// BLAKE3 of the sorted lines `hash  name` of all files.
        digest: String,
    },
    Different {
        /// The first difference.
        what: String,
    },
}

impl Comparison {
    pub(super) const fn is_equal(&self) -> bool {
        matches!(self, Self::Equal { .. })
    }
}

/// Name to hash; a directory has none.
type Listing = BTreeMap<String, Option<blake3::Hash>>;

/// Compares every node's folder of the job, by node name.
pub(super) async fn all(
    source: &Source,
    folders: &BTreeMap<String, PathBuf>,
) -> Result<BTreeMap<String, Comparison>, Failure> {
    let objects = source.objects.clone();
    let wanted = tokio::task::spawn_blocking(move || hash_source(&objects)).await;
    let wanted = wanted.map_err(|error| Failure::failed(error.to_string()))?;
    let wanted = Arc::new(wanted.map_err(|(path, error)| {
        Failure::failed(format!("cannot read {} to compare: {error}", path.display()))
    })?);
    let mut compared = BTreeMap::new();
    let mut running = JoinSet::new();
    for (name, folder) in folders {
        let (name, folder, wanted) = (name.clone(), folder.clone(), Arc::clone(&wanted));
        running.spawn_blocking(move || (name, compare(&wanted, &folder)));
    }
    while let Some(done) = running.join_next().await {
        let (name, comparison) = done.map_err(|error| Failure::failed(error.to_string()))?;
        compared.insert(name, comparison);
    }
    Ok(compared)
}

fn hash_source(objects: &BTreeMap<String, Object>) -> Result<Listing, (PathBuf, std::io::Error)> {
    let mut listing = Listing::new();
    for (name, object) in objects {
        let hash = match object {
            Object::Directory => None,
            Object::File(path) => Some(hash_file(path).map_err(|error| (path.clone(), error))?),
        };
        listing.insert(name.clone(), hash);
        // Directories that are there only because something lies in them.
        for (at, _) in name.match_indices('/') {
            listing.entry(name.get(..at).unwrap_or_default().to_owned()).or_insert(None);
        }
    }
    Ok(listing)
}

fn compare(wanted: &Listing, folder: &Path) -> Comparison {
    let mut found = Listing::new();
    if let Err(error) = list(folder, "", &mut found) {
        return Comparison::Different { what: format!("{}: {error}", folder.display()) };
    }
    let names: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let first = names.into_iter().find(|name| wanted.get(*name) != found.get(*name));
    if let Some(name) = first {
        let what = match (wanted.get(name), found.get(name)) {
            (_, None) => format!("{name} is missing"),
            (None, _) => format!("{name} should not be there"),
            (Some(_), Some(_)) => format!("{name} has other bytes"),
        };
        return Comparison::Different { what };
    }
    let mut digest = blake3::Hasher::new();
    for (name, hash) in &found {
        if let Some(hash) = hash {
            digest.update(format!("{hash}  {name}\n").as_bytes());
        }
    }
    Comparison::Equal { digest: digest.finalize().to_hex().to_string() }
}

fn list(folder: &Path, prefix: &str, found: &mut Listing) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            found.insert(name.clone(), None);
            list(&entry.path(), &format!("{name}/"), found)?;
        } else {
            let hash = hash_file(&entry.path())?;
            found.insert(name, Some(hash));
        }
    }
    Ok(())
}

fn hash_file(path: &Path) -> std::io::Result<blake3::Hash> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (source, node) = (folder.path().join("source"), folder.path().join("node"));
        for side in [&source, &node] {
            std::fs::create_dir_all(side.join("d/empty")).unwrap();
            std::fs::write(side.join("d/a"), "a").unwrap();
            std::fs::write(side.join("b"), "").unwrap();
        }
        let objects = BTreeMap::from([
            ("d/a".to_owned(), Object::File(source.join("d/a"))),
            ("d/empty".to_owned(), Object::Directory),
            ("b".to_owned(), Object::File(source.join("b"))),
        ]);
        let wanted = hash_source(&objects).unwrap();
        assert!(compare(&wanted, &node).is_equal());
        let differs = |what: &str| match compare(&wanted, &node) {
            Comparison::Different { what: found } => assert!(found.contains(what), "{found}"),
            Comparison::Equal { .. } => panic!("{what} was not seen"),
        };
        std::fs::write(node.join("b"), "b").unwrap();
        differs("b has other bytes");
        std::fs::write(node.join("b"), "").unwrap();
        std::fs::write(node.join("more"), "").unwrap();
        differs("more should not be there");
        std::fs::remove_file(node.join("more")).unwrap();
        std::fs::remove_dir(node.join("d/empty")).unwrap();
        differs("d/empty is missing");
    }
}
