//! Which nodes of a job know of each other.
//!
//! Each node is told of at most [`limit::VIEW_MAX`] others, so that what a node keeps does not
//! grow with the fleet, and of fewer for a job so small that shaking hands with them would cost a
//! large part of what its content does. Nodes stand in a circle, in the order of the server list,
//! and know those at some distances from them, drawn for each job, and the two beside them. Who is
//! known knows back, so either may dial: circulant graphs with random distances have short ways (at
//! 1,024 nodes and eight distances at most 5 steps, as the test below sees).

use crate::id::JobId;
use crate::limit;

/// Fewest nodes that one knows of, if there are as many. Whom they all leave the base feeds.
const VIEW_MIN: usize = 8;
/// Content for each node that is known, bytes. To shake hands with one takes about 10 KB in all.
const VIEW_BYTES: u64 = 128 * 1024;

/// How many nodes each knows of in a job with `size` bytes of content, if that is known: an even
/// number, since who is known knows back.
pub fn view_size(size: Option<u64>) -> usize {
    let most = size.map_or(limit::VIEW_MAX as u64, |size| size / VIEW_BYTES);
    usize::try_from(most).map_or(limit::VIEW_MAX, |most| most.clamp(VIEW_MIN, limit::VIEW_MAX)) & !1
}

/// The places of the nodes that the one at `place` of `count` knows of, in a job with `size` bytes
/// of content.
pub fn neighbours(job: JobId, size: Option<u64>, place: usize, count: usize) -> Vec<usize> {
    let view = view_size(size);
    if place >= count {
        return Vec::new();
    }
    if count <= view + 1 {
        return (0..count).filter(|other| *other != place).collect();
    }
    let mut places: Vec<usize> = Vec::with_capacity(view);
    for distance in distances(job, view / 2, count) {
        for other in [(place + distance) % count, (place + count - distance) % count] {
            if other != place && !places.contains(&other) {
                places.push(other);
            }
        }
    }
    places
}

/// So many distances, half as many as there are neighbours, below half the circle.
fn distances(job: JobId, wanted: usize, count: usize) -> Vec<usize> {
    let mut state = u64::from_le_bytes(
        crate::seal::Hash::of(&job.0).0.first_chunk().copied().unwrap_or_default(),
    );
    let half = (count as u64 - 1) / 2;
    let mut distances = vec![1];
    while distances.len() < wanted {
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
        for (job, size) in JOBS.into_iter().zip([None, Some(1_000_000), Some(1_500_000)]) {
            for count in [1, 2, 9, 10, 11, 17, 18, 19, 32, 33, 100] {
                for place in 0..count {
                    let known = neighbours(job, size, place, count);
                    assert!(known.len() <= view_size(size), "{count}: {known:?}");
                    assert!(!known.contains(&place));
                    let knows_back =
                        |other: &usize| neighbours(job, size, *other, count).contains(&place);
                    assert!(known.iter().all(knows_back));
                }
            }
        }
        assert_eq!(neighbours(JOBS[0], None, 5, 5), Vec::<usize>::new());
    }

    #[test]
    fn a_small_job_has_a_small_view() {
        let sizes =
            [Some(0), Some(1 << 20), Some(9 << 17), Some(3 << 19), Some(1 << 21), Some(u64::MAX)];
        assert_eq!(sizes.map(view_size), [8, 8, 8, 12, 16, 16]);
        assert_eq!(view_size(None), 16);
    }

    #[test]
    fn everybody_is_few_steps_away() {
        for job in JOBS {
            let small = Some(0);
            let circles = [(None, 17, 1), (None, 32, 3), (None, 1_024, 5), (small, 1_024, 10)];
            for (size, count, most) in circles {
                let mut steps = vec![usize::MAX; count];
                let mut queue = VecDeque::from([(0, 0)]);
                while let Some((place, step)) = queue.pop_front() {
                    if steps[place] > step {
                        steps[place] = step;
                        let known = neighbours(job, size, place, count);
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
        let known: BTreeSet<_> =
            JOBS.map(|job| neighbours(job, None, 3, 500)).into_iter().collect();
        assert_eq!(known.len(), JOBS.len());
    }
}
