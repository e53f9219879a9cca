//! Which nodes of a job know of each other.
//!
//! Each node is told of at most [`limit::VIEW_MAX`] others, so that what a node keeps does not
//! grow with the fleet. Nodes stand in a circle, in the order of the server list, and know those
//! at some distances from them, drawn for each job, and the two beside them. Who is known knows
//! back, so either may dial: circulant graphs with random distances have short ways (at 1,024 nodes and eight
//! distances at most 5 steps, as the test below sees).

use crate::id::JobId;
use crate::limit;

/// The places of the nodes that the one at `place` of `count` knows of, in a job.
pub fn neighbours(job: JobId, place: usize, count: usize) -> Vec<usize> {
    if place >= count {
        return Vec::new();
    }
    if count <= limit::VIEW_MAX + 1 {
        return (0..count).filter(|other| *other != place).collect();
    }
    let mut places: Vec<usize> = Vec::with_capacity(limit::VIEW_MAX);
    for distance in distances(job, count) {
        for other in [(place + distance) % count, (place + count - distance) % count] {
            if other != place && !places.contains(&other) {
                places.push(other);
            }
        }
    }
    places
}

/// Half as many distances as there are neighbours, below half the circle.
fn distances(job: JobId, count: usize) -> Vec<usize> {
    let mut state = u64::from_le_bytes(
        crate::seal::Hash::of(&job.0).0.first_chunk().copied().unwrap_or_default(),
    );
    let half = (count as u64 - 1) / 2;
    let mut distances = vec![1];
    while distances.len() < limit::VIEW_MAX / 2 {
        // The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number
        // generators", OOPSLA 2014 (SplitMix64).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let drawn = 1 + (mixed ^ (mixed >> 31)) % half;
        let drawn = usize::try_from(drawn).unwrap_or(1);
        if !distances.contains(&drawn) {
            distances.push(drawn);
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use super::*;

    const JOBS: [JobId; 3] = [JobId([1; 16]), JobId([2; 16]), JobId([77; 16])];

    #[test]
    fn who_is_known_knows_back_and_few_are_known() {
        for job in JOBS {
            for count in [1, 2, 17, 18, 19, 32, 33, 100] {
                for place in 0..count {
                    let known = neighbours(job, place, count);
                    assert!(known.len() <= limit::VIEW_MAX, "{count}: {known:?}");
                    assert!(!known.contains(&place));
                    assert!(known.iter().all(|o| neighbours(job, *o, count).contains(&place)));
                }
            }
        }
        assert_eq!(neighbours(JOBS[0], 5, 5), Vec::<usize>::new());
    }

    #[test]
    fn everybody_is_few_steps_away() {
        for job in JOBS {
            for (count, most) in [(17, 1), (32, 3), (1_024, 5)] {
                let mut steps = vec![usize::MAX; count];
                let mut queue = VecDeque::from([(0, 0)]);
                while let Some((place, step)) = queue.pop_front() {
                    if steps[place] > step {
                        steps[place] = step;
                        let known = neighbours(job, place, count);
                        queue.extend(known.into_iter().map(|other| (other, step + 1)));
                    }
                }
                let furthest = steps.iter().max().copied();
                assert!(furthest <= Some(most), "{count} nodes: {furthest:?} steps");
            }
        }
    }

    #[test]
    fn jobs_differ() {
        let known: BTreeSet<_> = JOBS.map(|job| neighbours(job, 3, 500)).into_iter().collect();
        assert_eq!(known.len(), JOBS.len());
    }
}
