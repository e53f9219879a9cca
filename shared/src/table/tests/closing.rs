//! Quorum, deadlines, grace, and what stays after closing.

use super::*;

fn queries(fx: &[Effect]) -> Vec<String> {
    let nodes = fx.iter().filter_map(|effect| match effect {
        Effect::Query { node, .. } => Some(node.to_string()),
        _ => None,
    });
    nodes.collect()
}

fn answer(world: &mut World, node: &str, phase: Phase, bytes: u64) -> Vec<Effect> {
    let (node, report) = (name(node), Some(report(phase, bytes)));
    world.step(Input::Answer { node, incarnation: 1, job: id(1), report })
}

#[test]
fn a_job_closes_when_all_its_nodes_are_complete() {
    let mut world = three(Dimensions { quorum: Quorum::Count(2), ..dimensions() });
    world.content(40, None);
    assert_eq!(world.state(), JobState::Receiving);
    world.content(100, END);
    assert_eq!(world.state(), JobState::Distributing);
    let quorum = |fx: &[Effect]| {
        fx.iter().any(|e| matches!(e, Effect::Event { body: EventBody::Quorum, .. }))
    };
    assert!(!quorum(&world.report("a", 1, Phase::Complete, 100)));
    assert!(quorum(&world.report("b", 1, Phase::Complete, 100)));
    assert_eq!(world.report("b", 1, Phase::Complete, 100), [], "twice is as once");
    let mut fx = Vec::new();
    let (node, report) = (name("c"), report(Phase::Complete, 100));
    let last = Input::Report { node, incarnation: 1, job: id(1), report };
    world.table.step(world.now, world.wall_ms, last, &mut fx);
    let kept = fx.iter().rposition(|effect| matches!(effect, Effect::Persist(_)));
    let told = fx
        .iter()
        .position(|effect| matches!(effect, Effect::Event { body: EventBody::Closed(_), .. }));
    assert!(kept.unwrap() < told.unwrap(), "durable before told: {fx:?}");
    assert_eq!(orders(&fx), each(&["a", "b", "c"], "closed"));
    let view = world.table.view(id(1)).unwrap();
    assert_eq!((view.state, view.size, view.bytes), (JobState::Complete, Some(100), 100));
    assert_eq!(view.digest, Some("09".repeat(32)));
    assert!(view.closed_at.is_some() && view.reason.is_none());
}

#[test]
fn at_the_deadline_the_missing_are_queried_once_and_named() {
    let mut world = three(dimensions());
    world.content(100, END);
    world.report("a", 1, Phase::Complete, 100);
    world.report("b", 1, Phase::Failed("disk full".into()), 7);
    world.report("c", 1, Phase::Receiving, 30);
    world.step(Input::NodeDown { node: name("c") });
    assert_eq!(queries(&world.after(Duration::from_secs(59))), [""; 0]);
    assert_eq!(queries(&world.after(Duration::from_secs(1))), ["b", "c"]);
    assert_eq!(queries(&world.after(Duration::from_secs(1))), [""; 0], "once");
    answer(&mut world, "b", Phase::Failed("disk full".into()), 7);
    assert_eq!(world.state(), JobState::Distributing);
    let mut fx = Vec::new();
    while closings(&fx).is_empty() {
        let wake = world.table.next_wake().unwrap();
        fx = world.after(wake.since(world.now));
    }
    assert_eq!(closings(&fx), [JobState::Partial]);
    let late = world.now.since(Time::from_micros(77)) - Duration::from_secs(60);
    assert!(late <= limit::CLOSING_MAX, "{late:?}");
    let reason = world.table.view(id(1)).unwrap().reason.unwrap();
    assert_eq!(
        reason,
        "2 of 3 nodes missing at the deadline: b (failed: disk full), \
         c (unreachable, no answer to the query; 30 of 100 bytes when last heard)"
    );
    let view = world.table.view(id(1)).unwrap();
    assert_eq!(view.nodes[1].reason.as_deref(), Some("disk full"));
    assert!(view.nodes[2].reason.as_ref().unwrap().starts_with("unreachable"));
}

#[test]
fn a_job_closes_as_soon_as_all_who_are_behind_have_answered() {
    let outcomes = [
        // (quorum, what b answers) -> how the job closes
        (Quorum::All, Phase::Complete, JobState::Partial),
        (Quorum::Count(2), Phase::Complete, JobState::Complete),
        (Quorum::Count(2), Phase::Receiving, JobState::Partial),
        (Quorum::Percent(34), Phase::Complete, JobState::Complete),
        (Quorum::Percent(67), Phase::Complete, JobState::Partial),
    ];
    for (quorum, phase, state) in outcomes {
        let mut world = three(Dimensions { quorum, ..dimensions() });
        world.content(100, END);
        world.report("a", 1, Phase::Complete, 100);
        world.report("c", 1, Phase::Receiving, 99);
        assert_eq!(queries(&world.after(Duration::from_secs(60))), ["b", "c"]);
        answer(&mut world, "b", phase.clone(), 100);
        let fx = answer(&mut world, "c", Phase::Receiving, 99);
        assert_eq!(closings(&fx), [state], "{quorum:?} {phase:?}");
        let reason = world.table.view(id(1)).unwrap().reason.unwrap_or_default();
        let named = reason.contains("c (not complete, 99 of 100 bytes)");
        assert_eq!(named, state == JobState::Partial, "{reason}");
    }
}

#[test]
fn a_job_still_being_received_is_partial_at_its_deadline() {
    let mut world = three(dimensions());
    world.content(40, None);
    world.after(Duration::from_secs(60));
    let fx = world.after(limit::QUERY_PATIENCE);
    assert_eq!(closings(&fx), [JobState::Partial]);
    let reason = world.table.view(id(1)).unwrap().reason.unwrap();
    assert!(reason.starts_with("the publisher had not finished, 40 bytes; 3 of 3"), "{reason}");
    assert!(reason.contains("a (no answer to the query"), "{reason}");
}

#[test]
fn the_default_deadline_is_four_times_the_expected_time_but_ten_minutes() {
    let cases = [
        // (deadline_s, rate_bps, size) -> seconds
        ((Some(5), None, 1 << 40), 5),
        ((None, None, 0), 600),
        ((None, None, 187_500_000), 600),
        ((None, None, 1_875_000_000), 6_000),
        ((None, Some(1_000_000), 187_500_000), 6_000),
        ((None, Some(u64::MAX), 1_875_000_000), 6_000),
    ];
    for ((deadline_s, rate_bps, size), seconds) in cases {
        let asked = Dimensions { deadline_s, rate_bps, ..dimensions() };
        let budget = clock::deadline_budget(&asked, size);
        assert_eq!(budget, Duration::from_secs(seconds), "{deadline_s:?} {rate_bps:?} {size}");
    }
}

#[test]
fn a_live_job_has_its_deadline_from_the_publishers_end() {
    let mut world = three(Dimensions { kind: Kind::Live, size: None, ..dimensions() });
    assert_eq!(world.table.view(id(1)).unwrap().deadline, None);
    world.after(Duration::from_secs(3_600));
    assert_eq!(world.state(), JobState::Receiving);
    world.content(100, END);
    assert!(world.table.view(id(1)).unwrap().deadline.is_some());
    assert_eq!(queries(&world.after(Duration::from_secs(59))), [""; 0]);
    assert_eq!(queries(&world.after(Duration::from_secs(1))).len(), 3);
}

#[test]
fn a_deadline_survives_restarts_and_a_wall_clock_that_jumps() {
    let mut world = three(dimensions());
    world.content(100, END);
    world.after(Duration::from_secs(30));
    // The monotonic clock starts anew, the wall clock is a year off.
    let mut world = World::restart(world.kept, Time::from_micros(5), 31_536_000_000);
    world.step(Input::Tick);
    let fx = world.after(Duration::from_secs(29));
    assert_eq!(queries(&fx), [""; 0]);
    let fx = world.after(Duration::from_secs(1));
    assert_eq!(queries(&fx), ["a", "b", "c"], "30 s before the restart count");
    let mark = world.kept.clock_us;
    assert_eq!(mark, 59_000_000, "base time, as it is written down");
}

#[test]
fn base_time_is_marked_while_there_is_a_job_to_time() {
    let mut world = World::new();
    let marked = |world: &mut World| {
        world.after(CHECKPOINT_EVERY);
        world.kept.clock_us
    };
    assert_eq!(marked(&mut world), 0, "nothing to time");
    world.create(new_job(1, "t", &["a"], dimensions())).unwrap();
    assert_eq!(marked(&mut world), 10_000_000);
    let (now, wall) = (world.now, world.wall_ms);
    world.table.cancel(now, wall, (id(1), "x"), &mut Vec::new()).unwrap();
    assert_eq!(marked(&mut world), 10_000_000);
    assert_eq!(world.table.next_wake(), None);
}

#[test]
fn a_job_without_publisher_for_longer_than_its_grace_fails() {
    let grace = Duration::from_secs(20);
    let gone = || Input::PublisherGone { job: id(1) };
    let back = || Input::PublisherBack { job: id(1) };

    let mut world = World::new();
    world.create(new_job(1, "t", &["a"], dimensions())).unwrap();
    assert_eq!(closings(&world.after(grace)), [JobState::Failed], "it never came");
    let reason = world.table.view(id(1)).unwrap().reason.unwrap();
    assert!(reason.starts_with("the publisher t was gone for more than 20 s"), "{reason}");

    let mut world = three(dimensions());
    world.step(gone());
    world.after(grace - Duration::from_secs(1));
    world.step(gone());
    world.step(back());
    assert_eq!(closings(&world.after(grace)), [], "it came back in time");
    world.step(gone());
    world.content(100, END);
    assert_eq!(closings(&world.after(grace - Duration::from_secs(1))), [], "it is not needed");
    assert_eq!(world.state(), JobState::Distributing);

    let mut world = three(dimensions());
    world.step(gone());
    world.content(50, None);
    let fx = world.after(grace);
    assert_eq!(closings(&fx), [JobState::Failed], "what it sent last does not bring it back");

    let world = three(dimensions());
    let mut world = World::restart(world.kept, world.now, world.wall_ms);
    let fx = world.after(grace - Duration::from_secs(1));
    assert_eq!(closings(&fx), [], "the grace starts anew with the base");
    let fx = world.after(Duration::from_secs(1));
    assert_eq!((closings(&fx), world.state()), (vec![JobState::Failed], JobState::Failed));
    assert!(fx.contains(&Effect::DropContent { job: id(1) }));
}

#[test]
fn late_nodes_change_only_their_own_line() {
    let mut world = three(dimensions());
    world.content(100, END);
    world.report("a", 1, Phase::Complete, 100);
    world.after(Duration::from_secs(60));
    world.after(limit::QUERY_PATIENCE);
    let closed = world.table.view(id(1)).unwrap();
    assert_eq!(closed.state, JobState::Partial);
    for node in ["b", "c"] {
        assert_eq!(orders(&world.up(node)), each(&[node], "closed"));
        assert_eq!(world.report(node, 1, Phase::Receiving, 50), []);
        assert_eq!(world.report(node, 1, Phase::Complete, 100), [], "nothing follows `closed`");
        assert_eq!(world.line(node).0, NodeJobState::Complete);
    }
    let nodes = closed.nodes.clone();
    let later = JobView { nodes, ..world.table.view(id(1)).unwrap() };
    assert_eq!(later, closed);
    let world = World::restart(world.kept, world.now, world.wall_ms);
    assert_eq!(world.line("b").0, NodeJobState::Complete, "kept");
    assert_eq!(world.state(), JobState::Partial);
}

#[test]
fn a_retention_that_ends_loses_nothing() {
    let mut world = three(Dimensions { keep: Keep::Seconds(5), ..dimensions() });
    world.content(100, END);
    for node in ["a", "b", "c"] {
        world.report(node, 1, Phase::Complete, 100);
    }
    assert_eq!(world.after(Duration::from_secs(4)), [], "not yet");
    assert_eq!(orders(&world.after(Duration::from_secs(1))), each(&["a", "b", "c"], "drop"));
    assert_eq!(world.after(Duration::from_secs(1)), [], "told once");
    world.report("a", 1, Phase::Dropped, 0);
    assert_eq!((world.line("a").0, world.state()), (NodeJobState::Complete, JobState::Complete));
    // One that was away, and a base that was: it is told again.
    let known = Input::Known { node: name("b"), job: id(1) };
    assert_eq!(orders(&world.step(known)), each(&["b"], "drop"));
    let fx = world.report("c", 1, Phase::Complete, 100);
    assert_eq!(orders(&fx), each(&["c"], "drop"));
    let mut world = World::restart(world.kept, world.now, world.wall_ms);
    assert_eq!(orders(&world.after(CHECKPOINT_EVERY)), each(&["a", "b", "c"], "drop"));
}

#[test]
fn what_is_dropped_before_its_time_is_lost() {
    for keep in [Keep::Seconds(5), Keep::Forever] {
        let mut world = three(Dimensions { keep, ..dimensions() });
        world.content(100, END);
        for node in ["a", "b", "c"] {
            world.report(node, 1, Phase::Complete, 100);
        }
        world.report("a", 1, Phase::Dropped, 0);
        assert_eq!((world.line("a").0, world.state()), (NodeJobState::Lost, JobState::Complete));
    }
}

#[test]
fn content_is_dropped_an_hour_after_closing_and_again_until_confirmed() {
    let mut world = three(dimensions());
    world.content(100, END);
    for node in ["a", "b", "c"] {
        world.report(node, 1, Phase::Complete, 100);
    }
    let drop = [Effect::DropContent { job: id(1) }];
    assert_eq!(world.after(CONTENT_KEPT - Duration::from_secs(1)), []);
    assert_eq!(world.table.jobs_with_content().collect::<Vec<_>>(), [id(1)]);
    assert_eq!(world.after(Duration::from_secs(1)), drop);
    assert_eq!(world.after(Duration::from_secs(1)), []);
    let mut world = World::restart(world.kept, world.now, world.wall_ms);
    assert_eq!(world.after(CHECKPOINT_EVERY), drop, "nobody said that it was done");
    world.step(Input::ContentDropped { job: id(1) });
    let mut world = World::restart(world.kept, world.now, world.wall_ms);
    assert_eq!(world.after(CHECKPOINT_EVERY), []);
}

#[test]
fn an_unasked_drop_of_an_open_job_is_assigned_again() {
    let mut world = three(dimensions());
    world.report("a", 1, Phase::Receiving, 50);
    let fx = world.report("a", 1, Phase::Dropped, 0);
    assert_eq!(orders(&fx), each(&["a"], "open"));
    assert_eq!(world.line("a"), (NodeJobState::Waiting, 0));
}
