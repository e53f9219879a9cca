//! Figures of runs: how many are made, and what is said of several.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what is wrong ends the test")]

/// A figure of which another one may be in the environment, as `SEEDS`: more by hand.
///
/// # Panics
/// If what is there is no number.
pub fn by_hand(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |figure| figure.parse().unwrap())
}

/// The middle one; of an even number the higher of both.
///
/// # Panics
/// If there is none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
