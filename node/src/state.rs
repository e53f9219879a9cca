//! What a node remembers about itself and its base, in one small file.

use serde::{Deserialize, Serialize};
use shared::seal::{Hash, PublicKey};
use shared::wire::codec;
use shared_io::data_folder::{DataFolder, random};

use crate::NodeError;

const FILE: &str = "node.state";

/// What a node remembers. Each change is durable before it is acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    /// The format of the file.
    version: u8,
    /// The random number of this store: another one means that everything is lost.
    pub(crate) store: [u8; 16],
    /// Counts the starts on this store.
    pub(crate) boot: u64,
    /// The incarnation that the base assigned last; 0 if none yet.
    pub(crate) incarnation: u64,
    /// The highest epoch of the base that was obeyed: a lower one is a base that was.
    pub(crate) epoch: u64,
    /// The key of the base that assigned the jobs of this store.
    pub(crate) base_key: Option<PublicKey>,
}

const VERSION: u8 = 1;
/// Bytes of the checksum that the file begins with.
const SUM_LEN: usize = 8;

fn sum(body: &[u8]) -> [u8; SUM_LEN] {
    Hash::of(body).0.first_chunk().copied().unwrap_or_default()
}

impl NodeState {
    /// Reads the state, or makes the first one; counts this start.
    pub(crate) fn start(folder: &DataFolder) -> Result<Self, NodeError> {
        let mut state = match folder.read(FILE)? {
            None => Self {
                version: VERSION,
                store: random()?,
                boot: 0,
                incarnation: 0,
                epoch: 0,
                base_key: None,
            },
            Some(bytes) => Self::read(&bytes)
                .filter(|state| state.version == VERSION)
                .ok_or_else(|| NodeError::State(folder.path().join(FILE).display().to_string()))?,
        };
        state.boot += 1;
        state.save(folder)?;
        Ok(state)
    }

    /// Makes the state durable.
    pub(crate) fn save(&self, folder: &DataFolder) -> Result<(), NodeError> {
        let body = codec::encode(self);
        Ok(folder.write(FILE, &[sum(&body).as_slice(), &body].concat())?)
    }

    /// The state in a file, if the file is as it was written.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (claimed, body) = bytes.split_first_chunk::<SUM_LEN>()?;
        (sum(body) == *claimed).then(|| codec::decode::<Self, 1024>(body).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_counts_and_the_store_stays() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        let first = NodeState::start(&data).unwrap();
        let second = NodeState::start(&data).unwrap();
        assert_eq!((first.boot, second.boot, first.store), (1, 2, second.store));
        let whole = data.read(FILE).unwrap().unwrap();
        for bit in 0..whole.len() * 8 {
            let mut broken = whole.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            data.write(FILE, &broken).unwrap();
            assert!(matches!(NodeState::start(&data), Err(NodeError::State(_))), "bit {bit}");
        }
    }
}
