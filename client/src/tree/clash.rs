//! Names that cannot be in one plan together.

use shared::seal::Hash;

use super::{Plan, TreeError};

/// Refuses two paths with one name. The plan is sorted, so they are neighbours.
pub(super) fn refuse_meeting(plan: &Plan) -> Result<(), TreeError> {
    let followers = plan.entries().skip(1);
    match plan.entries().zip(followers).find(|(first, second)| first.name == second.name) {
        None => Ok(()),
        Some((first, second)) => Err(TreeError::Meet {
            name: first.name.to_owned(),
            first: first.path(),
            second: second.path(),
        }),
    }
}

/// Refuses names that are equal once case is folded. Names are kept as 20 bytes meanwhile.
pub(super) fn refuse_case(plan: &Plan) -> Result<(), TreeError> {
    let mut keys: Vec<([u8; 16], u32)> =
        plan.entries().zip(0..).map(|(entry, index)| (folded_key(entry.name), index)).collect();
    keys.sort_unstable();
    let followers = keys.iter().skip(1);
    let equal = keys.iter().zip(followers).filter(|(a, b)| a.0 == b.0);
    let Some((first, second)) = equal.map(|(a, b)| (a.1, b.1)).min() else {
        return Ok(());
    };
    let path = |index: u32| {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        plan.entry(index).map(|entry| entry.path()).unwrap_or_default()
    };
    Err(TreeError::Case { first: path(first), second: path(second) })
}

fn folded_key(name: &str) -> [u8; 16] {
    let folded: String = name.chars().map(fold).collect();
    let Hash(hash) = Hash::of(folded.as_bytes());
    hash.first_chunk().copied().unwrap_or_default()
}

/// Simple folding: by way of upper case, because some letters have two lower-case forms.
/// Letters whose other case is several letters stay, as file systems leave them.
fn fold(letter: char) -> char {
    let single =
        |mut letters: Box<dyn Iterator<Item = char>>| match (letters.next(), letters.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        };
    if letter.is_ascii() {
        return letter.to_ascii_lowercase();
    }
    let upper = single(Box::new(letter.to_uppercase())).unwrap_or(letter);
    single(Box::new(upper.to_lowercase())).unwrap_or(upper)
}

#[cfg(test)]
mod tests {
    use super::fold;

    #[test]
    fn folding_joins_cases_and_nothing_else() {
        let folded = |text: &str| text.chars().map(fold).collect::<String>();
        for (a, b) in [
            ("ReadMe", "README"),
            ("\u{c4}", "\u{e4}"),
            ("\u{3c2}", "\u{3c3}"),
            ("\u{3a3}", "\u{3c2}"),
        ] {
            assert_eq!(folded(a), folded(b), "{a} {b}");
        }
        for (a, b) in [("\u{df}", "ss"), ("a", "\u{e4}"), ("a_", "a-"), ("\u{131}x", "jx")] {
            assert_ne!(folded(a), folded(b), "{a} {b}");
        }
    }
}
