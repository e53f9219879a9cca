//! How hosts' links are shared: bytes as a fluid, max-min fair.

/// What one connection wants to send in one direction, in bytes per second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// What it gets where others with the weight 1 get 1.
    pub(crate) weight: f64,
    /// What it takes at most: for its path, its window and what it has to send.
    pub(crate) most: f64,
}

/// Room of the hosts' links, bytes per second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room {
    pub(crate) up: Vec<f64>,
    pub(crate) down: Vec<f64>,
}

/// Rounds of filling. Each gives what is left of every link to those that still rise; after
/// eight, less than 1 % is left where somebody could use it.
const ROUNDS: usize = 8;
/// Less than this of what it takes at most is nothing.
const EPSILON: f64 = 1e-3;

/// What each connection gets: as much as the others on its links by its weight, except for what some cannot use,
/// which the rest shares. Takes it from the room.
pub(crate) fn share(room: &mut Room, demands: &[Demand], rates: &mut Vec<f64>) {
    rates.clear();
    rates.resize(demands.len(), 0.0);
    let mut rising: Vec<usize> = (0..demands.len()).collect();
    let full = |left: f64, was: f64| left <= was * EPSILON;
    let was = room.clone();
    let mut weights = (vec![0.0; room.up.len()], vec![0.0; room.down.len()]);
    for _ in 0..ROUNDS {
        if rising.is_empty() {
            return;
        }
        weights.0.fill(0.0);
        weights.1.fill(0.0);
        for &at in &rising {
            let Demand { from, to, weight, .. } = demands[at];
            weights.0[from] += weight;
            weights.1[to] += weight;
        }
        let left = room.clone();
        for &at in &rising {
            let Demand { from, to, weight, most } = demands[at];
            let up = left.up[from] * weight / weights.0[from];
            let down = left.down[to] * weight / weights.1[to];
            let more = up.min(down).min(most - rates[at]).max(0.0);
            rates[at] += more;
            room.up[from] -= more;
            room.down[to] -= more;
        }
        rising.retain(|&at| {
            let Demand { from, to, most, .. } = demands[at];
            most - rates[at] > most * EPSILON
                && !full(room.up[from], was.up[from])
                && !full(room.down[to], was.down[to])
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(up: &[f64], down: &[f64], demands: &[(usize, usize, f64)]) -> Vec<i64> {
        let mut room = Room { up: up.to_vec(), down: down.to_vec() };
        let demands: Vec<Demand> = demands
            .iter()
            .map(|&(from, to, most)| Demand { from, to, weight: 1.0, most })
            .collect();
        let mut rates = Vec::new();
        share(&mut room, &demands, &mut rates);
        assert!(room.up.iter().chain(&room.down).all(|left| *left > -1e-6), "{room:?}");
        rates.iter().map(|rate| rate.round() as i64).collect()
    }

    #[test]
    fn one_link_is_shared_evenly_except_for_what_one_cannot_use() {
        let far = f64::MAX;
        let wide = [1e9; 4];
        let demands = [(0, 1, far), (0, 2, 10.0), (0, 3, far)];
        assert_eq!(shares(&[100.0, 0.0, 0.0, 0.0], &wide, &demands), [45, 10, 45]);
    }

    #[test]
    fn who_is_held_up_elsewhere_leaves_the_rest_to_others() {
        // 0 sends to 2 and 3, 1 sends to 2: the downlink of 2 holds two of them up.
        let demands = [(0, 2, f64::MAX), (0, 3, f64::MAX), (1, 2, f64::MAX)];
        let found = shares(&[100.0, 100.0, 0.0, 0.0], &[0.0, 0.0, 40.0, 1e9], &demands);
        assert_eq!(found, [20, 80, 20]);
    }
}
