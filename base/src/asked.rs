//! Which question about a job each node was asked last: an answer to an earlier one says how
//! things were then.

use std::collections::BTreeMap;

use shared::id::{JobId, Name};

/// The last question of each open job and node; at most as many as there are lines of open jobs.
#[derive(Debug, Default)]
pub(crate) struct Asked(BTreeMap<(JobId, Name), u64>);

impl Asked {
    /// `node` is asked about `job`; what it was asked before does not count any more.
    pub(crate) fn ask(&mut self, node: &Name, job: JobId, nonce: u64) {
        self.0.insert((job, node.clone()), nonce);
    }

    /// Whether an answer is that to the last question, which is answered then.
    pub(crate) fn take(&mut self, node: &Name, job: JobId, nonce: u64) -> bool {
        let key = (job, node.clone());
        let is_last = self.0.get(&key) == Some(&nonce);
        if is_last {
            self.0.remove(&key);
        }
        is_last
    }

    /// Nobody waits for answers about `job` any more.
    pub(crate) fn forget(&mut self, job: JobId) {
        self.0.retain(|(id, _), _| *id != job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_the_last_question_counts_and_once() {
        let (job, other) = (JobId([1; 16]), JobId([2; 16]));
        let node = Name::new("a").unwrap();
        let mut asked = Asked::default();
        assert!(!asked.take(&node, job, 1), "nothing was asked");
        asked.ask(&node, job, 1);
        asked.ask(&node, job, 2);
        asked.ask(&node, other, 3);
        assert!(!asked.take(&node, job, 1), "an earlier one");
        assert!(asked.take(&node, job, 2));
        assert!(!asked.take(&node, job, 2), "twice");
        asked.ask(&node, job, 4);
        asked.forget(job);
        assert!(!asked.take(&node, job, 4), "closed");
        assert!(asked.take(&node, other, 3));
    }
}
