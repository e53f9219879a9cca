//! Creation, reports, presence, rights, removal.

use super::*;

#[test]
fn a_job_is_created_once_per_client_and_key() {
    let mut world = World::new();
    let first = new_job(1, "t", &["a"], dimensions());
    let again = NewJob { id: id(2), name: name("other"), ..first.clone() };
    let of_another = NewJob { client: name("u"), ..again.clone() };
    assert_eq!(world.create(first), Ok(Created { id: id(1), fresh: true }));
    assert_eq!(world.create(again), Ok(Created { id: id(1), fresh: false }));
    assert_eq!(world.create(of_another), Ok(Created { id: id(2), fresh: true }));
}

#[test]
fn creation_tells_every_node_and_the_watchers() {
    let mut world = World::new();
    world.up("a");
    world.after(limit::DOWN_AFTER);
    let mut fx = Vec::new();
    let new = new_job(1, "t", &["a", "b"], dimensions());
    world.table.create(world.now, world.wall_ms, new, &mut fx).unwrap();
    assert!(matches!(fx.first(), Some(Effect::Persist(Transition::Created(..)))));
    assert!(matches!(fx.get(1), Some(Effect::Event { body: EventBody::Created, .. })));
    assert_eq!(orders(&fx), each(&["a", "b"], "open"));
    assert_eq!(told(&fx), BTreeMap::from([("b".to_owned(), NodeJobState::Unreachable)]));
}

#[test]
fn a_name_is_unique_among_open_jobs_and_means_the_newest_closed_one() {
    let mut world = World::new();
    let named = || Dimensions { name: Some(name("n")), ..dimensions() };
    world.create(new_job(1, "t", &["a"], named())).unwrap();
    let taken = |own| Err(TableError::NameTaken { name: name("n"), own });
    assert_eq!(world.create(new_job(2, "t", &["a"], named())), taken(Some(id(1))));
    assert_eq!(world.create(new_job(2, "u", &["a"], named())), taken(None), "no job of another");
    let by_name = JobRef::Name(name("n"));
    for number in 1..=3 {
        assert_eq!(world.table.resolve(&by_name, None), Ok(id(number)));
        world.wait(Duration::from_secs(1));
        let (now, wall) = (world.now, world.wall_ms);
        world.table.cancel(now, wall, (id(number), "x"), &mut Vec::new()).unwrap();
        assert_eq!(world.table.resolve(&by_name, None), Ok(id(number)));
        world.create(new_job(number + 1, "t", &["a"], named())).unwrap();
    }
}

#[test]
fn an_open_job_is_gone_on_with_by_its_client_and_with_its_options() {
    let mut world = World::new();
    let named = Dimensions { name: Some(name("n")), ..dimensions() };
    let begun = |world: &World, client: &str, dimensions: &Dimensions| {
        world.table.begun(&name(client), dimensions)
    };
    assert_eq!(begun(&world, "t", &named), Ok(None));
    world.create(new_job(1, "t", &["a"], named.clone())).unwrap();
    assert_eq!(begun(&world, "t", &named), Ok(Some(id(1))));
    assert_eq!(begun(&world, "u", &named), Ok(None), "no job of another");
    assert_eq!(begun(&world, "t", &dimensions()), Ok(None), "no name");
    let resized = Dimensions { size: Some(1), ..named.clone() };
    assert_eq!(begun(&world, "t", &resized), Ok(Some(id(1))));
    let slower = Dimensions { rate_bps: Some(1), ..named.clone() };
    let refused = Err(TableError::Begun { name: name("n"), id: id(1), option: "--rate" });
    assert_eq!(begun(&world, "t", &slower), refused);
    let (now, wall) = (world.now, world.wall_ms);
    world.table.cancel(now, wall, (id(1), "x"), &mut Vec::new()).unwrap();
    assert_eq!(begun(&world, "t", &named), Ok(None), "it is closed");
}

#[test]
fn jobs_of_other_clients_look_unknown() {
    let mut world = World::new();
    world.create(new_job(1, "t", &["a"], dimensions())).unwrap();
    world.create(new_job(2, "u", &["a"], dimensions())).unwrap();
    for wanted in [JobRef::Id(id(1)), JobRef::Name(name("j1"))] {
        assert_eq!(world.table.resolve(&wanted, Some(&name("t"))), Ok(id(1)));
        assert_eq!(world.table.resolve(&wanted, None), Ok(id(1)));
        let refused = world.table.resolve(&wanted, Some(&name("u")));
        assert_eq!(refused, Err(TableError::UnknownJob(wanted)));
    }
    assert_eq!(world.table.views(Some(&name("t"))).len(), 1);
    assert_eq!(world.table.views(None).len(), 2);
    assert_eq!(world.table.servers(id(1), &name("b")), None, "b is not on the list");
    assert!(world.table.servers(id(1), &name("a")).is_some());
}

#[test]
fn limits_refuse_by_name() {
    let mut world = World::new();
    assert_eq!(world.create(new_job(1, "t", &[], dimensions())), Err(TableError::NoServers));
    let new = new_job(1, "t", &["a"], dimensions());
    for number in 0..u64::try_from(limit::JOBS_OPEN_MAX).unwrap() {
        let (id, key, name) = (id(number), id(number).0, name(&format!("n{number}")));
        world.create(NewJob { id, key, name, ..new.clone() }).unwrap();
    }
    let over = NewJob { id: id(9_999), key: [9; 16], name: name("over"), ..new.clone() };
    assert_eq!(world.create(over.clone()), Err(TableError::TooManyJobs));
    let (now, wall) = (world.now, world.wall_ms);
    world.table.cancel(now, wall, (id(0), "x"), &mut Vec::new()).unwrap();
    assert_eq!(world.create(over).map(|created| created.fresh), Ok(true));

    let mut world = World::new();
    let many = (0..limit::SERVERS_MAX).map(|n| name(&format!("n{n}"))).collect();
    let many = Arc::new(ServerList::new(many));
    let full = LINES_OPEN_MAX / limit::SERVERS_MAX;
    for number in 0..u64::try_from(full).unwrap() {
        let (id, key, name) = (id(number), id(number).0, name(&format!("n{number}")));
        let servers = Arc::clone(&many);
        world.create(NewJob { id, key, name, servers, ..new.clone() }).unwrap();
    }
    let over = NewJob { id: id(9_999), key: [9; 16], name: name("over"), ..new };
    assert_eq!(world.create(over), Err(TableError::TooManyLines));
}

#[test]
fn progress_of_an_incarnation_never_goes_back() {
    let mut world = three(dimensions());
    let steps = [
        // (incarnation, bytes told) -> bytes shown
        ((3, 50), 50),
        ((3, 40), 50),
        ((2, 90), 50),
        ((4, 10), 10),
        ((3, 99), 10),
        ((4, 60), 60),
    ];
    for ((incarnation, bytes), shown) in steps {
        world.report("a", incarnation, Phase::Receiving, bytes);
        let line = world.line("a");
        assert_eq!(line, (NodeJobState::Receiving, shown), "{incarnation} told {bytes}");
    }
}

#[test]
fn a_completion_counts_when_the_end_is_durable_at_the_base() {
    let mut world = three(dimensions());
    for node in ["a", "b", "c"] {
        assert_eq!(closings(&world.report(node, 1, Phase::Complete, 100)), []);
    }
    assert_eq!((world.line("a").0, world.state()), (NodeJobState::Receiving, JobState::Receiving));
    let fx = world.content(100, END);
    assert_eq!(closings(&fx), [JobState::Complete]);
    assert_eq!(world.line("a").0, NodeJobState::Complete);
}

#[test]
fn a_completion_is_revoked_visibly_and_only_with_cause() {
    let cases = [
        // (incarnation, phase, bytes) after a completion of incarnation 2 with 100 bytes
        ((3, Phase::Receiving, 99), NodeJobState::Lost),
        ((3, Phase::Receiving, 0), NodeJobState::Lost),
        ((3, Phase::Receiving, 100), NodeJobState::Complete),
        ((3, Phase::Complete, 100), NodeJobState::Complete),
        ((2, Phase::Receiving, 0), NodeJobState::Complete),
        ((1, Phase::Failed("x".into()), 0), NodeJobState::Complete),
        ((2, Phase::Failed("rotten".into()), 90), NodeJobState::Lost),
        ((2, Phase::Dropped, 0), NodeJobState::Lost),
    ];
    for ((incarnation, phase, bytes), expected) in cases {
        let mut world = three(Dimensions { quorum: Quorum::Count(1), ..dimensions() });
        world.content(100, END);
        let fx = world.report("a", 2, Phase::Complete, 100);
        assert!(fx.iter().any(|e| matches!(e, Effect::Event { body: EventBody::Quorum, .. })));
        let fx = world.report("a", incarnation, phase.clone(), bytes);
        let case = format!("{incarnation} {phase:?} {bytes}");
        assert_eq!(world.line("a").0, expected, "{case}");
        let lost = expected == NodeJobState::Lost;
        assert_eq!(told(&fx).get("a"), lost.then_some(&NodeJobState::Lost), "{case}");
        assert_eq!(world.table.status(id(1)).unwrap().quorum, !lost, "{case}");
    }
}

#[test]
fn a_lost_line_receives_again_once_it_grows() {
    let mut world = three(dimensions());
    world.content(100, END);
    world.report("a", 1, Phase::Complete, 100);
    world.report("a", 2, Phase::Receiving, 10);
    world.report("a", 2, Phase::Receiving, 10);
    assert_eq!(world.line("a"), (NodeJobState::Lost, 10));
    world.report("a", 2, Phase::Receiving, 11);
    assert_eq!(world.line("a"), (NodeJobState::Receiving, 11));
    world.report("a", 2, Phase::Complete, 100);
    assert_eq!(world.line("a"), (NodeJobState::Complete, 100));
}

#[test]
fn a_failed_node_is_told_once_and_may_recover() {
    let mut world = three(dimensions());
    let full = || Phase::Failed("disk full".into());
    let fx = world.report("a", 1, full(), 5);
    assert_eq!(told(&fx).get("a"), Some(&NodeJobState::Failed));
    assert_eq!(world.report("a", 1, full(), 5), []);
    let view = world.table.view(id(1)).unwrap();
    assert_eq!(view.nodes[0].reason.as_deref(), Some("disk full"));
    world.step(Input::NodeDown { node: name("a") });
    assert_eq!(world.line("a").0, NodeJobState::Failed, "a verdict stays");
    world.report("a", 1, Phase::Receiving, 6);
    world.up("a");
    assert_eq!(world.line("a"), (NodeJobState::Receiving, 6));
}

#[test]
fn a_node_without_room_says_so_and_goes_on() {
    let mut world = three(dimensions());
    world.report("a", 1, Phase::Receiving, 5);
    let full = || Phase::Stalled("disk full".into());
    let fx = world.report("a", 1, full(), 5);
    assert_eq!(told(&fx).get("a"), Some(&NodeJobState::Receiving), "{fx:?}");
    assert_eq!(world.report("a", 1, full(), 5), []);
    let reason = |world: &World| world.table.view(id(1)).unwrap().nodes[0].reason.clone();
    assert_eq!(reason(&world).as_deref(), Some("disk full"));
    let fx = world.report("a", 1, Phase::Receiving, 6);
    assert_eq!(told(&fx).get("a"), Some(&NodeJobState::Receiving), "it is told that it goes on");
    assert_eq!((reason(&world), world.line("a")), (None, (NodeJobState::Receiving, 6)));
}

#[test]
fn who_is_not_heard_is_unreachable_until_it_is() {
    let mut world = three(dimensions());
    world.report("a", 1, Phase::Receiving, 5);
    assert_eq!(world.step(Input::NodeSilent { node: name("a") }), []);
    let fx = world.step(Input::NodeDown { node: name("a") });
    assert_eq!(told(&fx), BTreeMap::from([("a".to_owned(), NodeJobState::Unreachable)]));
    assert_eq!(world.line("a"), (NodeJobState::Unreachable, 5));
    let fx = world.up("a");
    assert_eq!(told(&fx), BTreeMap::from([("a".to_owned(), NodeJobState::Receiving)]));
    assert_eq!(orders(&fx), each(&["a"], "open"));
}

#[test]
fn after_a_start_nodes_have_time_to_come_back() {
    let world = three(dimensions());
    let mut world = World::restart(world.kept, world.now, world.wall_ms);
    assert_eq!(world.table.next_wake(), Some(world.now + CHECKPOINT_EVERY));
    world.up("a");
    let fx = world.after(limit::DOWN_AFTER - Duration::from_millis(1));
    assert_eq!(told(&fx), BTreeMap::new());
    let fx = world.after(Duration::from_millis(1));
    let gone = NodeJobState::Unreachable;
    assert_eq!(told(&fx), BTreeMap::from([("b".to_owned(), gone), ("c".to_owned(), gone)]));
}

#[test]
fn a_job_that_is_not_a_nodes_own_is_dropped_there() {
    let mut world = three(dimensions());
    assert_eq!(orders(&world.report("z", 1, Phase::Receiving, 5)), each(&["z"], "drop"));
    assert_eq!(world.report("z", 1, Phase::Dropped, 0), [], "no answer to a confirmation");
    let known = |job| Input::Known { node: name("a"), job };
    assert_eq!(orders(&world.step(known(id(8)))), each(&["a"], "drop"));
    assert_eq!(orders(&world.step(known(id(1)))), each(&["a"], "open"));

    let kept = Restored { lossy: true, ..world.kept };
    let mut world = World::restart(kept, world.now, world.wall_ms);
    assert_eq!(world.step(known(id(8))), [], "it may be one that damage took");
    assert_eq!(orders(&world.report("z", 1, Phase::Receiving, 5)), each(&["z"], "drop"));
}

#[test]
fn a_cancelled_job_never_comes_back_and_is_dropped_by_all() {
    let mut world = three(dimensions());
    world.content(100, END);
    world.report("a", 1, Phase::Complete, 100);
    let mut fx = Vec::new();
    let (now, wall) = (world.now, world.wall_ms);
    world.table.cancel(now, wall, (id(1), "enough"), &mut fx).unwrap();
    assert_eq!(closings(&fx), [JobState::Cancelled]);
    assert_eq!(orders(&fx), each(&["a", "b", "c"], "drop"));
    assert!(fx.contains(&Effect::DropContent { job: id(1) }), "at once");
    assert_eq!(world.table.cancel(now, wall, (id(1), "again"), &mut fx), Ok(()));
    let failed = world.table.fail(now, wall, (id(1), "x"), &mut fx);
    assert_eq!(failed, Err(TableError::Closed { job: id(1), state: JobState::Cancelled }));

    for node in ["a", "b", "c"] {
        assert_eq!(orders(&world.report(node, 1, Phase::Complete, 100)), each(&[node], "drop"));
    }
    world.content(100, END);
    assert_eq!(world.state(), JobState::Cancelled);
    assert_eq!(orders(&world.up("a")), each(&["a"], "drop"), "told until it confirms");
    assert_eq!(orders(&world.report("a", 1, Phase::Dropped, 0)), []);
    assert_eq!(orders(&world.up("a")), []);
    assert_eq!(world.table.view(id(1)).unwrap().reason.as_deref(), Some("enough"));
}

#[test]
fn a_removed_job_is_unknown_and_its_tombstone_waits_for_all() {
    let mut world = three(dimensions());
    let mut fx = Vec::new();
    let (now, wall) = (world.now, world.wall_ms);
    world.table.remove(now, wall, (id(1), "removed by t"), &mut fx).unwrap();
    assert_eq!(closings(&fx), [JobState::Cancelled], "it was open");
    world.keep(fx);
    assert!(world.table.resolve(&JobRef::Id(id(1)), None).is_err());
    assert_eq!(world.table.views(None), []);
    assert_eq!(world.table.counts().iter().map(|(_, count)| count).sum::<usize>(), 0);

    let mut world = World::restart(world.kept, world.now, world.wall_ms);
    let fx = world.step(Input::Tick);
    assert!(fx.contains(&Effect::DropContent { job: id(1) }), "asked again after a start");
    world.step(Input::ContentDropped { job: id(1) });
    world.report("a", 1, Phase::Dropped, 0);
    let none = Input::Answer { node: name("b"), incarnation: 1, job: id(1), report: None };
    assert_eq!(world.step(none), [], "who does not know it has dropped it");
    assert_eq!(world.kept.rows.len(), 1);
    let fx = world.step(Input::NodeForgotten { node: name("c") });
    assert_eq!(fx, [Effect::Forgotten { job: id(1) }]);
    assert_eq!(world.kept.rows, []);
}

#[test]
fn closed_jobs_beyond_the_limit_stay_in_the_ledger() {
    let nodes: Vec<Name> = (0..limit::SERVERS_MAX).map(|n| name(&format!("n{n}"))).collect();
    let servers = Arc::new(ServerList::new(nodes));
    let mut world = World::new();
    let jobs = u64::try_from(LINES_CLOSED_MAX / limit::SERVERS_MAX).unwrap() + 1;
    let mut fx = Vec::new();
    for number in 1..=jobs {
        let new = new_job(number, "t", &["n1"], dimensions());
        world.create(NewJob { servers: Arc::clone(&servers), ..new }).unwrap();
        world.wait(Duration::from_secs(1));
        fx.clear();
        let (now, wall) = (world.now, world.wall_ms);
        world.table.cancel(now, wall, (id(number), "x"), &mut fx).unwrap();
    }
    assert!(world.table.resolve(&JobRef::Id(id(1)), None).is_err(), "the oldest");
    assert!(world.table.resolve(&JobRef::Id(id(2)), None).is_ok());
    let known = Input::Known { node: name("n1"), job: id(1) };
    assert_eq!(orders(&world.step(known.clone())), each(&["n1"], "drop"), "it was cancelled");

    let archived = vec![(id(1), false)];
    let mut world =
        World::restart(Restored { archived, ..Restored::default() }, world.now, world.wall_ms);
    assert_eq!(world.step(known), [], "complete jobs are kept by nodes");
}

#[test]
fn a_node_with_a_new_store_is_asked_about_closed_jobs_too() {
    let mut world = three(dimensions());
    world.content(100, END);
    for node in ["a", "b", "c"] {
        world.report(node, 1, Phase::Complete, 100);
    }
    assert_eq!(world.state(), JobState::Complete);
    assert_eq!(orders(&world.up("a")), []);
    let fx = world.step(Input::NodeUp { node: name("a"), incarnation: 2, new_store: true });
    assert_eq!(orders(&fx), each(&["a"], "closed"));
    world.report("a", 2, Phase::Receiving, 0);
    assert_eq!(world.line("a").0, NodeJobState::Lost);
    assert_eq!(world.state(), JobState::Complete, "closing was final");
    assert_eq!(orders(&world.up("a")), each(&["a"], "closed"), "it may still finish");
}
