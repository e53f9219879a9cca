//! The digest of a job, as `job show` gives it.

use std::fmt::Write as _;

use blake3::Hasher;
use shared::seal::Hash;

/// The BLAKE3 of the one file, or of the lines that `b3sum` prints for all files, sorted as
/// bytes. Directories do not count.
///
/// The lines are kept until the end: about 80 bytes and the name for each file.
#[derive(Debug, Default)]
pub(super) struct JobDigest {
    only: Option<Hash>,
    lines: Vec<Box<str>>,
}

impl JobDigest {
    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, digest: &Hash) {
        self.only = self.lines.is_empty().then_some(*digest);
        self.lines.push(line(name, digest).into());
    }

    /// The digest of all files that were added.
    pub(super) fn finish(&mut self) -> Hash {
        self.only.unwrap_or_else(|| {
            self.lines.sort_unstable();
            let mut hasher = Hasher::new();
            for line in &self.lines {
                hasher.update(line.as_bytes());
            }
            Hash(*hasher.finalize().as_bytes())
        })
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
        let mut lines = [format!("{a}  a\n"), format!("{b}  b\n")];
        lines.sort();
        assert_eq!(digest.finish(), Hash::of(lines.concat().as_bytes()));
        // By the bytes of the lines, not of the names.
        assert!(lines[0].ends_with("b\n"));
    }
}
