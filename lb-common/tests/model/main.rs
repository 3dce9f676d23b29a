//! A model of a service over time: random flows against random changes, through the very
//! code that the kernel runs. A flow whose backend lives never changes backend.

mod world;

use proptest::prelude::*;

use self::world::{Policy, World};

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Event {
    /// A client opens a connection, on numbers that may have been used before.
    Open(u16),
    /// A client repeats its SYN.
    RepeatSyn(prop::sample::Index),
    /// A flow speaks.
    Speak(prop::sample::Index),
    /// A flow ends.
    Close(prop::sample::Index),
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
}

fn event() -> impl Strategy<Value = Event> {
    use Event::*;
    let any = any::<prop::sample::Index>;
    prop_oneof![
        8 => (0u16..40).prop_map(Open),
        3 => any().prop_map(RepeatSyn),
        20 => any().prop_map(Speak),
        2 => any().prop_map(Close),
        8 => (1u32..world::IDLE_TICKS).prop_map(Wait),
        5 => Just(Tidy),
        2 => Just(Add),
        2 => (any(), 1u32..200).prop_map(|(which, weight)| Weigh(which, weight)),
        2 => any().prop_map(Drain),
        2 => any().prop_map(Undrain),
        1 => any().prop_map(Remove),
        1 => any().prop_map(Die),
        1 => any().prop_map(Return),
        1 => (0u8..4).prop_map(Algorithm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// TCP, whatever the policy for the dead.
    #[test]
    fn a_flow_keeps_its_living_backend(
        events in prop::collection::vec(event(), 1..150),
        silent: bool,
        affinity: bool,
        backends in 1usize..6,
    ) {
        let mut world = World::new(backends, Policy { silent, affinity });
        for event in events {
            match event {
                Event::Open(client) => world.open(client)?,
                Event::RepeatSyn(which) => world.repeat_syn(which)?,
                Event::Speak(which) => world.speak(which)?,
                Event::Close(which) => world.close(which)?,
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
            }
        }
        world.end()?;
    }
}
