//! Random inputs, restarts among them, and what must hold after each.

use super::*;

const NODES: [&str; 4] = ["a", "b", "c", "d"];
const JOBS: u64 = 4;

/// SplitMix64: a seed, and a sequence that looks random.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len() as u64);
        from[usize::try_from(at).unwrap()].clone()
    }
}

struct Run {
    world: World,
    chance: Chance,
    seed: u64,
    /// Bytes shown of a node's incarnation.
    shown: BTreeMap<(JobId, String), u64>,
    /// The newest incarnation that was heard about a job.
    heard: BTreeMap<(JobId, String), u64>,
    incarnations: BTreeMap<String, u64>,
    closed: BTreeMap<JobId, (JobState, Option<String>)>,
    orders: BTreeMap<JobId, u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            world: World::new(),
            chance: Chance(seed),
            seed,
            shown: BTreeMap::new(),
            heard: BTreeMap::new(),
            incarnations: NODES.iter().map(|node| ((*node).to_owned(), 1)).collect(),
            closed: BTreeMap::new(),
            orders: BTreeMap::new(),
        }
    }

    fn create(&mut self) {
        for number in 1..=JOBS {
            let count = 1 + usize::try_from(self.chance.below(4)).unwrap();
            let asked = Dimensions {
                kind: self.chance.pick(&[Kind::Files, Kind::Live]),
                quorum: self.chance.pick(&[Quorum::All, Quorum::Count(2), Quorum::Percent(50)]),
                deadline_s: self.chance.pick(&[None, Some(30), Some(90)]),
                keep: self.chance.pick(&[Keep::Forever, Keep::Seconds(3)]),
                ..dimensions()
            };
            self.world.create(new_job(number, "t", &NODES[..count], asked)).unwrap();
        }
    }

    fn report(&mut self, node: &str) -> Report {
        let bytes = self.chance.below(101);
        let phase = match self.chance.below(8) {
            0..3 => Phase::Receiving,
            3 => Phase::Stalled(format!("{node} is full")),
            4..6 => Phase::Complete,
            6 => Phase::Failed(format!("{node} failed")),
            _ => Phase::Dropped,
        };
        report(phase, bytes)
    }

    fn input(&mut self) -> Input {
        let node = self.chance.pick(&NODES);
        let job = id(1 + self.chance.below(JOBS + 1));
        let newest = self.incarnations[node];
        match self.chance.below(16) {
            0 => {
                self.incarnations.insert(node.to_owned(), newest + 1);
                let new_store = self.chance.below(2) == 0;
                Input::NodeUp { node: name(node), incarnation: newest + 1, new_store }
            }
            1 => Input::NodeDown { node: name(node) },
            2 => Input::Known { node: name(node), job },
            3 => {
                let report = (self.chance.below(3) > 0).then(|| self.report(node));
                Input::Answer { node: name(node), incarnation: newest, job, report }
            }
            4..10 => {
                let report = self.report(node);
                let incarnation = newest.saturating_sub(self.chance.below(2));
                Input::Report { node: name(node), incarnation, job, report }
            }
            10..12 => {
                let end = (self.chance.below(3) == 0).then_some((100, Hash([9; 32])));
                Input::Content { job, bytes: self.chance.below(101), end }
            }
            12 => self.chance.pick(&[
                Input::PublisherGone { job },
                Input::PublisherBack { job },
                Input::ContentDropped { job },
            ]),
            _ => {
                let seconds = self.chance.pick(&[0, 1, 5, 20]);
                self.world.wait(Duration::from_secs(seconds));
                Input::Tick
            }
        }
    }

    fn act(&mut self) {
        let (now, wall) = (self.world.now, self.world.wall_ms);
        let job = id(1 + self.chance.below(JOBS));
        let mut fx = Vec::new();
        match self.chance.below(60) {
            0 => drop(self.world.table.cancel(now, wall, (job, "x"), &mut fx)),
            1 => drop(self.world.table.fail(now, wall, (job, "x"), &mut fx)),
            2 => drop(self.world.table.remove(now, wall, (job, "x"), &mut fx)),
            3 | 4 => {
                let (kept, seconds) = (self.world.kept.clone(), self.chance.below(100));
                let now = Time::from_micros(seconds * 1_000_000);
                self.world = World::restart(kept, now, wall + 1);
                self.shown.clear();
                self.heard.clear();
            }
            _ => {
                let input = self.input();
                let repeats = !matches!(input, Input::Known { .. } | Input::NodeUp { .. });
                self.world.table.step(now.max(self.world.now), wall, input.clone(), &mut fx);
                self.heard(&input);
                if repeats {
                    self.again(input);
                }
            }
        }
        self.judge(&fx);
        self.world.keep(fx);
        self.check();
    }

    /// The same word again changes nothing that is kept and tells nobody anything.
    fn again(&mut self, input: Input) {
        let mut fx = Vec::new();
        self.world.table.step(self.world.now, self.world.wall_ms, input.clone(), &mut fx);
        let unasked =
            matches!(&input, Input::Report { report, .. } if report.phase == Phase::Dropped);
        let new = fx.iter().find(|effect| !matches!(effect, Effect::Assign { .. }));
        assert!(unasked || new.is_none(), "seed {}: {input:?} again: {new:?}", self.seed);
        self.world.keep(fx);
    }

    /// A new incarnation and a revoking word start the account of progress anew.
    fn heard(&mut self, input: &Input) {
        let (node, incarnation, job, phase) = match input {
            Input::Report { node, incarnation, job, report }
            | Input::Answer { node, incarnation, job, report: Some(report) } => {
                (node, incarnation, job, &report.phase)
            }
            _ => return,
        };
        let key = (*job, node.to_string());
        let newer = self.heard.get(&key).is_none_or(|newest| newest < incarnation);
        let dropped = *phase == Phase::Dropped;
        if newer && !dropped {
            self.heard.insert(key.clone(), *incarnation);
        }
        if newer || dropped || matches!(phase, Phase::Failed(_)) {
            self.shown.remove(&key);
        }
    }

    fn judge(&mut self, fx: &[Effect]) {
        let mut durable = BTreeMap::new();
        for effect in fx {
            match effect {
                Effect::Persist(Transition::Status(id, status)) => {
                    durable.insert(*id, status.state);
                }
                Effect::Event { job, body, .. } => {
                    assert!(!self.closed.contains_key(job), "seed {}: {body:?}", self.seed);
                    if let EventBody::Closed(view) = body {
                        assert_eq!(durable.get(job), Some(&view.state), "seed {}", self.seed);
                        self.closed.insert(*job, (view.state, view.reason.clone()));
                    }
                }
                Effect::Assign { job, order: Assign::Open(_), .. } => {
                    assert!(!self.closed.contains_key(job), "seed {}: reopened", self.seed);
                    *self.orders.entry(*job).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        let table = &self.world.table;
        for view in table.views(None) {
            let job: JobId = view.id.parse().unwrap();
            let view = table.view(job).unwrap();
            if let Some((state, reason)) = self.closed.get(&job) {
                assert_eq!((view.state, &view.reason), (*state, reason), "seed {}", self.seed);
            }
            for line in view.nodes {
                let view_id = format!("{job} {} {} {}", line.name, line.state.as_str(), line.bytes);
                let shown = self.shown.entry((job, line.name)).or_default();
                assert!(line.bytes >= *shown, "seed {}: {view_id} {shown}", self.seed);
                *shown = line.bytes;
            }
        }
        self.compare();
    }

    /// What a restart would bring back is what is live.
    fn compare(&self) {
        let kept = &self.world.kept;
        let back = JobTable::new(self.world.now, self.world.wall_ms, kept.clone());
        for row in &kept.rows {
            let (id, seed) = (row.head.id, self.seed);
            assert_eq!(back.status(id), self.world.table.status(id), "seed {seed}");
            let live = self.world.table.view(id).unwrap();
            for (then, now) in back.view(id).unwrap().nodes.iter().zip(&live.nodes) {
                let done = |state| state == NodeJobState::Complete;
                assert_eq!(done(then.state), done(now.state), "seed {seed}: {then:?} {now:?}");
                assert_eq!(then.completed_at, now.completed_at, "seed {seed}");
            }
        }
    }

    /// Once nothing happens but time, every job ends.
    fn finish(&mut self) {
        for number in 1..=JOBS {
            self.world.step(Input::PublisherGone { job: id(number) });
        }
        for _ in 0..1_000 {
            let Some(wake) = self.world.table.next_wake() else {
                break;
            };
            assert!(self.world.table.open_jobs().next().is_none() || wake >= self.world.now);
            self.world.wait(wake.since(self.world.now));
            let mut fx = Vec::new();
            self.world.table.step(self.world.now, self.world.wall_ms, Input::Tick, &mut fx);
            self.judge(&fx);
            let fx = self.world.keep(fx);
            for effect in fx {
                if let Effect::DropContent { job } = effect {
                    self.world.step(Input::ContentDropped { job });
                }
            }
        }
        let open: Vec<JobId> = self.world.table.open_jobs().collect();
        assert_eq!(open, [], "seed {}: never ends", self.seed);
        assert_eq!(self.world.table.jobs_with_content().count(), 0, "seed {}", self.seed);
    }
}

#[test]
fn the_rules_hold_whatever_comes_in() {
    let mut closed = BTreeMap::new();
    for seed in 0..600 {
        let mut run = Run::new(seed);
        run.create();
        for _ in 0..120 {
            run.act();
        }
        run.finish();
        for (state, _) in run.closed.values() {
            *closed.entry(*state).or_insert(0) += 1;
        }
    }
    // The run is worth something only if it gets everywhere.
    for state in [JobState::Complete, JobState::Partial, JobState::Failed, JobState::Cancelled] {
        assert!(closed.get(&state).is_some_and(|count| *count > 20), "{closed:?}");
    }
}
