//! The digest of a job, as `job show` gives it.

use std::fmt::Write as _;

use blake3::Hasher;
use shared::seal::Hash;

/// The BLAKE3 of the one file, or of the lines that `b3sum` prints for all files, in the
/// order of the bytes of their names. Directories do not count.
#[derive(Debug, Default)]
pub(super) struct JobDigest {
    files: u64,
    only: Option<Hash>,
    lines: Hasher,
}

impl JobDigest {
    /// Adds a file. Files come in the order of the bytes of their names.
    pub(super) fn add(&mut self, name: &str, digest: &Hash) {
        self.files = self.files.saturating_add(1);
        self.only = (self.files == 1).then_some(*digest);
        self.lines.update(line(name, digest).as_bytes());
    }

    /// The digest of all files that were added.
    pub(super) fn finish(&self) -> Hash {
        self.only
            .unwrap_or_else(|| Hash(*self.lines.finalize().as_bytes()))
    }
}

/// The line of `b3sum`, which marks a line whose name it had to escape. Of what it escapes,
/// a name can only contain the backslash.
fn line(name: &str, digest: &Hash) -> String {
    let mut line = String::with_capacity(name.len() + 68);
    if name.contains('\\') {
        line.push('\\');
    }
    // Writing to a String does not fail.
    let _ = write!(line, "{digest}  ");
    for letter in name.chars() {
        if letter == '\\' {
            line.push('\\');
        }
        line.push(letter);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_b3sum() {
        let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let empty = Hash::of(b"");
        assert_eq!(line("a b", &empty), format!("{hex}  a b\n"));
        assert_eq!(line("a\\b", &empty), format!("\\{hex}  a\\\\b\n"));
    }

    #[test]
    fn one_file_is_its_own_digest_and_none_is_that_of_nothing() {
        let mut digest = JobDigest::default();
        assert_eq!(digest.finish(), Hash::of(b""));
        let (a, b) = (Hash::of(b"a"), Hash::of(b"b"));
        digest.add("a", &a);
        assert_eq!(digest.finish(), a);
        digest.add("b", &b);
        assert_eq!(
            digest.finish(),
            Hash::of(format!("{a}  a\n{b}  b\n").as_bytes())
        );
    }
}
