//! Changes of a configuration in force: the same answers as from checking all of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_userspace::{
    config::{Backend, Config, Draft, Live, Pool, Problems, Service, from_toml},
    desired::Mode,
};
use proptest::prelude::*;

const POOLS: usize = 4;
const SERVICES: usize = 5;
const BACKENDS: usize = 4;

/// One step of a change.
#[derive(Clone, Debug)]
enum Step {
    Service(usize, Option<Box<Service>>),
    Pool(usize, Option<Box<Pool>>),
    Backend(usize, usize, Option<Backend>),
}

/// Few enough values that rules are broken often, and kept often.
fn address(number: u8) -> IpAddr {
    match number {
        0..4 => [10, 0, 0, number + 1].into(),
        4 => "2001:db8::1".parse().unwrap(),
        _ => [127, 0, 0, 1].into(),
    }
}

fn backend() -> impl Strategy<Value = Backend> {
    (0u8..40, 0u16..8).prop_map(|(host, port)| Backend {
        address: SocketAddr::new(
            address(if host == 39 {
                5
            } else if host == 38 {
                4
            } else {
                host % 4
            }),
            if port == 0 { 80 } else { 8000 + port },
        ),
        weight: 100,
    })
}

fn pool() -> impl Strategy<Value = Pool> {
    (
        prop::collection::btree_map(0..BACKENDS, backend(), 0..3),
        0u8..30,
    )
        .prop_map(|(backends, floor)| Pool {
            backends: backends
                .into_iter()
                .map(|(number, backend)| (format!("b{number}"), backend))
                .collect(),
            health_floor_percent: if floor == 29 { 101 } else { 50 },
            ..Pool::default()
        })
}

fn service() -> impl Strategy<Value = Service> {
    let modes = prop_oneof![
        4 => Just(Mode::Nat),
        3 => Just(Mode::FullNat),
        2 => Just(Mode::Dsr),
        1 => Just(Mode::Local),
    ];
    let fallback = prop::option::weighted(0.3, 0..POOLS);
    (0u8..60, 0u16..4, modes, 0..POOLS, fallback, any::<bool>()).prop_map(
        |(host, port, mode, pool, fallback, udp)| {
            let protocol = if udp { "udp" } else { "tcp" };
            let text = format!(
                "address = \"192.0.2.1\"\nport = 80\nprotocol = \"{protocol}\"\nmode = \"nat\"\npool = \"p{pool}\""
            );
            let service: Service = from_toml(text.as_bytes()).unwrap();
            Service {
                address: match host {
                    // Where a backend, or the source of full-nat, may be.
                    0 => address(0),
                    1 => [192, 0, 2, 200].into(),
                    2 => address(4),
                    _ => [192, 0, 2, host % 4].into(),
                },
                port: if port == 0 { 80 } else { 1999 + port },
                mode,
                fallback_pool: fallback.map(|pool| format!("p{pool}")),
                ..service
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..SERVICES, prop::option::weighted(0.8, service()))
            .prop_map(|(number, service)| Step::Service(number, service.map(Box::new))),
        2 => (0..POOLS, prop::option::weighted(0.8, pool()))
            .prop_map(|(number, pool)| Step::Pool(number, pool.map(Box::new))),
        6 => (0..POOLS, 0..BACKENDS, prop::option::weighted(0.8, backend()))
            .prop_map(|(pool, number, backend)| Step::Backend(pool, number, backend)),
    ]
}

fn start() -> Config {
    let text = "[agent]\ninterfaces = [\"eth0\"]\nlimits = { services = 4, backends = 9 }\n\
                full_nat = { addresses = [\"192.0.2.200\"], ports = [2000, 2001] }\n\
                [pools.p0]\n[pools.p1]\n[pools.p2]";
    from_toml(text.as_bytes()).unwrap()
}

fn plainly(config: &mut Config, step: Step) {
    match step {
        Step::Service(number, service) => {
            put(
                &mut config.services,
                format!("s{number}"),
                service.map(|service| *service),
            );
        }
        Step::Pool(number, pool) => {
            put(
                &mut config.pools,
                format!("p{number}"),
                pool.map(|pool| *pool),
            );
        }
        Step::Backend(pool, number, backend) => {
            if let Some(pool) = config.pools.get_mut(&format!("p{pool}")) {
                put(&mut pool.backends, format!("b{number}"), backend);
            }
        }
    }
}

fn put<T>(map: &mut BTreeMap<String, T>, name: String, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(name, value)),
        None => drop(map.remove(&name)),
    }
}

fn in_draft(draft: &mut Draft<'_>, step: Step) {
    match step {
        Step::Service(number, service) => {
            draft.set_service(format!("s{number}"), service.map(|service| *service))
        }
        Step::Pool(number, pool) => draft.set_pool(format!("p{number}"), pool.map(|pool| *pool)),
        Step::Backend(pool, number, backend) => {
            draft.set_backend(&format!("p{pool}"), format!("b{number}"), backend)
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any change is taken or refused, and for the same reasons, as if all were checked; what
    /// is refused or undone leaves nothing behind.
    #[test]
    fn changes_are_judged_as_the_whole_is(
        changes in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..25),
        undo in any::<u32>(),
    ) {
        let mut live = Live::new(start()).unwrap();
        for (number, change) in (0..).zip(changes) {
            let mut expected = live.config().clone();
            for step in change.clone() {
                plainly(&mut expected, step);
            }
            let before = live.config().clone();
            let result: Result<_, Problems> = live.change(|draft| {
                for step in change {
                    in_draft(draft, step);
                }
                Ok(())
            });
            match (result, expected.check()) {
                (Ok(((), changed)), Ok(())) => {
                    prop_assert_eq!(live.config(), &expected);
                    if undo & (1 << number) != 0 {
                        let again = live.undo(changed);
                        prop_assert_eq!(live.config(), &before);
                        live.undo(again);
                        prop_assert_eq!(live.config(), &expected);
                    }
                }
                (Err(problems), Err(expected)) => {
                    prop_assert_eq!(problems.0, expected.0);
                    prop_assert_eq!(live.config(), &before);
                }
                (result, expected) => {
                    prop_assert!(false, "{:?} instead of {:?}", result.map(drop), expected);
                }
            }
        }
    }

    /// A whole document in the place of another touches what differs.
    #[test]
    fn replacing_is_the_same_as_starting_anew(steps in prop::collection::vec(step(), 1..40)) {
        let mut live = Live::new(start()).unwrap();
        let mut new = start();
        for step in steps {
            let before = new.clone();
            plainly(&mut new, step);
            if new.check().is_err() {
                new = before;
            }
        }
        let (pools, services) = (new.pools.clone(), new.services.clone());
        let replace = |draft: &mut Draft<'_>| {
            draft.replace(pools, services);
            Ok::<_, Problems>(())
        };
        live.change(replace).map(drop).unwrap();
        prop_assert_eq!(live.config(), &new);
    }
}
