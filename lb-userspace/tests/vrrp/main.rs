//! Who holds addresses: the state machine of several nodes, over links that fail.

mod world;

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use world::{Event, INTERVAL, Node, Weather, World};

/// A link that loses nothing.
const CALM: Weather = Weather {
    delay: Duration::from_millis(5),
    lossy: false,
};

fn node(priority: u8, address: u8) -> Node {
    Node {
        priority,
        preempt: None,
        addresses: vec![address],
    }
}

/// Where messages are lost, delays are shorter than an owner's skew time: three in a row are one
/// too many for it.
fn weather(lossy: bool) -> Weather {
    let delay = Duration::from_millis(if lossy { 3 } else { 100 });
    Weather { delay, lossy }
}

fn skew(priority: u8) -> Duration {
    INTERVAL * (256 - u32::from(priority)) / 256
}

fn world(nodes: &[Node]) -> World {
    let mut world = World::new(nodes, CALM, 1);
    world.run(INTERVAL * 10);
    world
}

#[test]
fn the_best_begins() {
    let world = world(&[node(100, 9), node(150, 1), node(100, 200)]);
    assert_eq!(world.holders(), [1]);
    // The others heard it before their own time had come.
    assert_eq!(world.history.len(), 2);
    let took = world.history[1].0 - world.history[0].0;
    assert_eq!(took, INTERVAL * 3 + skew(150));
}

#[test]
fn an_owner_begins_at_once() {
    let world = World::new(&[node(255, 1), node(254, 2)], CALM, 1);
    assert_eq!(world.holders(), [0]);
}

#[test]
fn death_is_noticed_in_the_bound() {
    let mut world = world(&[node(150, 1), node(100, 2)]);
    let died = world.now;
    world.happen(Event::Kill(0));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
    let fault = world.longest_fault(died);
    assert!(fault <= INTERVAL * 3 + skew(100) + CALM.delay, "{fault:?}");
    // Back, but not preempting.
    world.happen(Event::Start(0));
    world.run(INTERVAL * 20);
    assert_eq!(world.holders(), [1]);
}

#[test]
fn an_end_and_a_hand_over_take_the_skew_time() {
    for event in [Event::HandOver(0), Event::End(0)] {
        let mut world = world(&[node(150, 1), node(100, 2)]);
        let begun = world.now;
        world.happen(event);
        world.run(INTERVAL * 20);
        assert_eq!(world.holders(), [1], "{event:?}");
        let fault = world.longest_fault(begun);
        assert!(fault <= skew(100) + CALM.delay, "{event:?}: {fault:?}");
    }
}

#[test]
fn one_that_preempts_keeps_its_hands_off_what_it_has_handed_over() {
    let preempts = Node {
        preempt: Some(Duration::ZERO),
        ..node(150, 1)
    };
    let mut world = world(&[preempts, node(100, 2)]);
    world.happen(Event::HandOver(0));
    world.run(INTERVAL * 20);
    assert_eq!(world.holders(), [1]);
}

#[test]
fn alone_it_takes_back_what_it_has_handed_over() {
    let mut world = world(&[node(100, 1)]);
    let begun = world.now;
    world.happen(Event::HandOver(0));
    world.run(INTERVAL * 5);
    assert_eq!(world.holders(), [0]);
    assert_eq!(world.longest_fault(begun), INTERVAL * 3 + skew(100));
}

#[test]
fn preemption_waits_for_its_delay_and_leaves_no_gap() {
    let preempts = Node {
        preempt: Some(INTERVAL * 10),
        ..node(150, 1)
    };
    let mut world = World::new(&[preempts, node(100, 2)], CALM, 1);
    world.happen(Event::Kill(0));
    world.run(INTERVAL * 10);
    let back = world.now;
    world.happen(Event::Start(0));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [0]);
    assert!(world.longest_fault(back) <= CALM.delay);
}

#[test]
fn a_lowered_priority_gives_way_without_preemption() {
    let mut world = world(&[node(150, 1), node(100, 2)]);
    let lowered = world.now;
    world.happen(Event::Lower(0, 40));
    world.run(INTERVAL * 20);
    assert_eq!(world.holders(), [0], "110 is still more than 100");
    world.happen(Event::Lower(0, 60));
    world.run(INTERVAL * 5);
    assert_eq!(world.holders(), [1]);
    world.happen(Event::Lower(0, 0));
    world.run(INTERVAL * 20);
    assert_eq!(world.holders(), [1], "it does not preempt");
    assert!(world.longest_fault(lowered) <= CALM.delay);
}

#[test]
fn after_a_split_the_loser_drops_at_once_and_the_winner_tells_again() {
    let mut world = world(&[node(100, 1), node(100, 2)]);
    assert_eq!(world.holders(), [1]);
    world.happen(Event::Part(None, 1));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [0, 1]);
    let (healed, announced) = (world.now, world.announced.clone());
    world.happen(Event::Heal);
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
    let fault = world.longest_fault(healed);
    assert!(fault <= INTERVAL + CALM.delay * 2, "{fault:?}");
    assert!(world.announced[1] >= announced[1] + 5);
    assert_eq!(world.announced[0], announced[0]);
}

#[test]
fn one_that_did_not_run_comes_back_as_a_newcomer() {
    let mut world = world(&[node(150, 1), node(100, 2)]);
    world.happen(Event::Pause(0));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
    let resumed = world.now;
    world.happen(Event::Resume(0));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
    assert_eq!(world.longest_fault(resumed), Duration::ZERO);
    // A backup that has overslept does not take what is held.
    world.happen(Event::Pause(0));
    world.run(INTERVAL * 10);
    world.happen(Event::Resume(0));
    world.run(INTERVAL * 10);
    assert_eq!(world.longest_fault(resumed), Duration::ZERO);
}

fn two_links(priority: u8, addresses: [u8; 2]) -> Node {
    Node {
        priority,
        preempt: None,
        addresses: addresses.to_vec(),
    }
}

#[test]
fn links_fail_over_together() {
    let mut world = world(&[two_links(150, [1, 1]), two_links(100, [2, 2])]);
    assert_eq!(world.holders(), [0]);
    let failed = world.now;
    world.happen(Event::Down(0, 1));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
    assert!(world.longest_fault(failed) <= skew(100) + CALM.delay);
    world.happen(Event::Up(0, 1));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [1]);
}

#[test]
fn while_one_link_hears_the_other_nobody_takes_over() {
    let mut world = world(&[two_links(150, [1, 1]), two_links(100, [2, 2])]);
    let parted = world.now;
    world.happen(Event::Part(Some(0), 1));
    world.run(INTERVAL * 30);
    assert_eq!(world.holders(), [0]);
    assert_eq!(world.longest_fault(parted), Duration::ZERO);
}

#[test]
fn a_tie_is_the_same_on_all_links() {
    // On the second link the other address is the higher one.
    let mut world = world(&[two_links(100, [1, 2]), two_links(100, [2, 1])]);
    assert_eq!(world.holders(), [1]);
    world.happen(Event::Part(None, 1));
    world.run(INTERVAL * 10);
    assert_eq!(world.holders(), [0, 1]);
    // Only the second link heals.
    world.happen(Event::Heal);
    world.happen(Event::Part(Some(0), 1));
    world.run(INTERVAL * 20);
    assert_eq!(world.holders().len(), 1);
}

fn event(nodes: usize, links: usize) -> impl Strategy<Value = Event> {
    let node = || 0..nodes;
    prop_oneof![
        (1..nodes).prop_map(|at| Event::Part(None, at)),
        Just(Event::Heal),
        node().prop_map(Event::Kill),
        node().prop_map(Event::Start),
        node().prop_map(Event::Pause),
        node().prop_map(Event::Resume),
        (node(), 0..links).prop_map(|(node, link)| Event::Down(node, link)),
        (node(), 0..links).prop_map(|(node, link)| Event::Up(node, link)),
        (node(), 0u32..200).prop_map(|(node, by)| Event::Lower(node, by)),
        node().prop_map(Event::HandOver),
        node().prop_map(Event::End),
    ]
}

fn nodes(count: usize, links: usize) -> impl Strategy<Value = Vec<Node>> {
    // Ties are likely.
    let priority = prop_oneof![Just(100u8), Just(150), 1u8..200, Just(255)];
    let preempt = prop::option::of((0u64..5000).prop_map(Duration::from_millis));
    let addresses = Just((1..=count as u8).collect::<Vec<_>>()).prop_shuffle();
    (vec((priority, preempt), count), vec(addresses, links)).prop_map(|(nodes, addresses)| {
        let node = |(index, (priority, preempt)): (usize, (u8, Option<Duration>))| Node {
            priority,
            preempt,
            addresses: addresses.iter().map(|link| link[index]).collect(),
        };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

/// Whatever happens: once it is over, in a bounded time exactly one holds, and goes on to.
fn settles(
    nodes: &[Node],
    weather: Weather,
    events: Vec<(u64, Event)>,
    seed: u64,
) -> Result<(), TestCaseError> {
    let mut world = World::new(nodes, weather, seed);
    for (after, event) in events {
        world.run(Duration::from_millis(after));
        world.happen(event);
    }
    world.happen(Event::Heal);
    for (node, settings) in nodes.iter().enumerate() {
        world.happen(Event::Resume(node));
        world.happen(Event::Start(node));
        for link in 0..settings.addresses.len() {
            world.happen(Event::Up(node, link));
        }
    }
    // An owner's claim, a delayed preemption and two elections, with two of three messages lost.
    world.run(INTERVAL * 30);
    prop_assert_eq!(world.holders().len(), 1, "{:?}", world.history);
    let settled = world.now;
    world.run(INTERVAL * 60);
    prop_assert_eq!(
        world.longest_fault(settled),
        Duration::ZERO,
        "{:?}",
        world.history
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn two_nodes_settle(
        nodes in nodes(2, 1),
        lossy in any::<bool>(),
        events in vec((0u64..6000, event(2, 1)), 0..20),
        seed in any::<u64>(),
    ) {
        settles(&nodes, weather(lossy), events, seed)?;
    }

    #[test]
    fn three_nodes_settle(
        nodes in nodes(3, 1),
        lossy in any::<bool>(),
        events in vec((0u64..6000, event(3, 1)), 0..20),
        seed in any::<u64>(),
    ) {
        settles(&nodes, weather(lossy), events, seed)?;
    }

    #[test]
    fn two_nodes_with_two_links_settle(
        nodes in nodes(2, 2),
        lossy in any::<bool>(),
        events in vec((0u64..6000, event(2, 2)), 0..20),
        seed in any::<u64>(),
    ) {
        settles(&nodes, weather(lossy), events, seed)?;
    }

    /// While nothing fails but messages, nothing changes hands.
    #[test]
    fn losses_alone_change_nothing(nodes in nodes(3, 1), seed in any::<u64>()) {
        settles(&nodes, weather(true), Vec::new(), seed)?;
    }

    /// No time with nobody, or with two, is longer than the arithmetic says.
    #[test]
    fn faults_are_bounded(
        nodes in nodes(2, 1),
        event in prop_oneof![
            (0..2usize).prop_map(Event::Kill),
            (0..2usize).prop_map(Event::Pause),
            (0..2usize).prop_map(|node| Event::Down(node, 0)),
            (0..2usize).prop_map(Event::End),
        ],
        after in 0u64..1000,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(&nodes, CALM, seed);
        world.run(INTERVAL * 30 + Duration::from_millis(after));
        let begun = world.now;
        world.happen(event);
        world.run(INTERVAL * 10);
        prop_assert_eq!(world.holders().len(), 1);
        let bound = INTERVAL * 3 + skew(1) + CALM.delay;
        let fault = world.longest_fault(begun);
        prop_assert!(fault <= bound, "{:?} {:?}", fault, world.history);
    }

    /// Once a split has healed, one of the two drops within an interval.
    #[test]
    fn splits_heal_within_an_interval(nodes in nodes(2, 1), after in 0u64..1000, seed in any::<u64>()) {
        let mut world = World::new(&nodes, CALM, seed);
        world.happen(Event::Part(None, 1));
        world.run(INTERVAL * 30 + Duration::from_millis(after));
        prop_assert_eq!(world.holders(), [0, 1]);
        let healed = world.now;
        world.happen(Event::Heal);
        world.run(INTERVAL * 10);
        prop_assert_eq!(world.holders().len(), 1);
        let fault = world.longest_fault(healed);
        prop_assert!(fault <= INTERVAL + CALM.delay * 2, "{:?} {:?}", fault, world.history);
    }
}
