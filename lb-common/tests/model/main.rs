//! A model of a service over time: random flows against random changes, through the very
//! code that the kernel runs. A flow whose backend lives never changes backend.

mod clients;
mod counting;
mod errors;
mod fragments;
mod full_nat;
mod memory;
mod wire;
mod world;

use proptest::{prelude::*, test_runner::RngSeed};

use self::world::{ALGORITHMS, Policy, World};

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    /// A client opens a connection, on numbers that may have been used before.
    Open(u16),
    /// A client repeats its SYN.
    RepeatSyn(prop::sample::Index),
    /// A flow speaks.
    Speak(prop::sample::Index),
    /// Its backend speaks, with one of [`clients::ANSWERS`].
    Hear(prop::sample::Index, usize),
    /// An ICMP error is sent about what a flow says, and what it hears.
    Complain(prop::sample::Index),
    /// A flow ends, by a RST or else by a FIN.
    Close(prop::sample::Index, bool),
    /// Time passes.
    Wait(u32),
    /// The agent's janitor passes by.
    Tidy,
    /// A backend is added.
    Add,
    /// A backend's weight changes.
    Weigh(prop::sample::Index, u32),
    /// A backend is drained.
    Drain(prop::sample::Index),
    /// A backend is not drained any more.
    Undrain(prop::sample::Index),
    /// A backend is taken out of the configuration.
    Remove(prop::sample::Index),
    /// A backend fails its checks.
    Die(prop::sample::Index),
    /// A backend passes them again.
    Return(prop::sample::Index),
    /// The service's algorithm changes.
    Algorithm(u8),
    /// The service begins to keep clients with their backends, or ends to.
    Affinity(bool),
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let which = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0..wire::CLIENTS).prop_map(Open),
        3 => which().prop_map(RepeatSyn),
        20 => which().prop_map(Speak),
        3 => (which(), 0..clients::ANSWERS.len()).prop_map(|(which, answer)| Hear(which, answer)),
        3 => which().prop_map(Complain),
        2 => (which(), any::<bool>()).prop_map(|(which, reset)| Close(which, reset)),
        8 => (1u32..world::IDLE_TICKS).prop_map(Wait),
        5 => Just(Tidy),
        2 => Just(Add),
        2 => (which(), 0u32..200).prop_map(|(which, weight)| Weigh(which, weight)),
        2 => which().prop_map(Drain),
        2 => which().prop_map(Undrain),
        1 => which().prop_map(Remove),
        1 => which().prop_map(Die),
        1 => which().prop_map(Return),
        2 => (0..ALGORITHMS).prop_map(Algorithm),
        1 => any::<bool>().prop_map(Affinity),
    ]
}

/// How many schedules are played, and from which seed: WEIR_SEED, or another each time. A
/// failure is told with its seed, and with the shortest schedule that still fails.
fn schedules() -> ProptestConfig {
    let given = std::env::var("WEIR_SEED").ok();
    let given = given.map(|seed| seed.parse().expect("WEIR_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let time = std::time::SystemTime::UNIX_EPOCH.elapsed();
        time.map_or(0, |time| time.as_nanos() as u64)
    });
    println!("to play the same schedules again: WEIR_SEED={seed}");
    ProptestConfig {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::with_cases(3000)
    }
}

fn play(world: &mut World, event: &Event) -> Result<(), TestCaseError> {
    match *event {
        Event::Open(client) => world.open(client)?,
        Event::RepeatSyn(which) => world.repeat_syn(which)?,
        Event::Speak(which) => world.speak(which)?,
        Event::Hear(which, answer) => world.hear(which, answer)?,
        Event::Complain(which) => world.complain(which)?,
        Event::Close(which, reset) => world.close(which, reset)?,
        Event::Wait(ticks) => world.wait(ticks),
        Event::Tidy => world.tidy(),
        Event::Add => world.add(),
        Event::Weigh(which, weight) => world.weigh(which, weight),
        Event::Drain(which) => world.drain(which, true),
        Event::Undrain(which) => world.drain(which, false),
        Event::Remove(which) => world.remove(which),
        Event::Die(which) => world.die(which),
        Event::Return(which) => world.come_back(which),
        Event::Algorithm(number) => world.set_algorithm(number),
        Event::Affinity(on) => world.set_affinity(on),
    }
    world.check()
}

proptest! {
    #![proptest_config(schedules())]

    /// Whatever the mode, the protocol and the policy for the dead.
    #[test]
    fn a_flow_keeps_its_living_backend(
        events in prop::collection::vec(event(), 1..150),
        silent: bool,
        udp in prop::bool::weighted(0.25),
        full_nat in prop::bool::weighted(0.3),
        backends in 1usize..6,
    ) {
        let mut world = World::new(backends, Policy { silent, udp, full_nat });
        for event in &events {
            play(&mut world, event)?;
        }
        world.end()?;
    }
}
