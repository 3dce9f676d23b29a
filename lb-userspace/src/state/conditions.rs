//! What each backend of a pool may be given, by its health, whether it can be reached, its drain and
//! the pool's floor.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    drains::{Drains, Stage},
    health::Verdicts,
};
use crate::{config::Pool, desired::Condition, health::Health};

/// A pool's backends at this moment.
pub(super) struct Conditions {
    /// By name.
    pub(super) backends: BTreeMap<String, Condition>,
    /// Whether so little is healthy that the failed are used too.
    pub(super) below_floor: bool,
    /// Whether there are backends and every one of them fails its checks.
    pub(super) down: bool,
    /// The same, of this node's own checks: it cannot serve, whatever others say.
    pub(super) cut_off: bool,
    /// Whether a backend that passes this node's checks has flows, or may be given some.
    pub(super) healthy: bool,
    /// Whether all that are to be used have been checked.
    pub(super) checked: bool,
    /// Whether nothing is known of any.
    pub(super) fresh: bool,
    /// Whether packets are forwarded to it: a pool that only the proxy uses need not be reached.
    pub(super) forwarded: bool,
}

/// What counts of a backend.
struct Known<'a> {
    name: &'a String,
    weight: u64,
    stage: Option<Stage>,
    /// By its checks.
    checks: Health,
    /// By its checks, and whether it can be reached.
    health: Health,
    /// The same, of this node's own checks.
    here: Health,
}

/// Decides for a pool. Before its first check, and before its next hop is known, a backend is used
/// where nobody is known to be healthy: at the start all are, and a newcomer to a pool that works
/// must show that it works first. Who cannot be reached is as good as failed, but keeps its flows:
/// they are lost only if it does not come back. `reach`: of the addresses of a pool that packets are
/// forwarded to.
pub(super) fn conditions(
    name: &str,
    pool: &Pool,
    verdicts: &Verdicts,
    drains: &Drains,
    reach: Option<impl Fn(IpAddr) -> Health>,
) -> Conditions {
    let forwarded = reach.is_some();
    // Each is looked up once: pools are large, and a change of one backend looks at all.
    let known = pool.backends.iter().map(|(backend, config)| {
        let (checks, checks_here) = verdicts.checks(name, pool, backend);
        let way = reach.as_ref().map(|reach| reach(config.address.ip()));
        let way = way.unwrap_or(Health::Healthy);
        Known {
            name: backend,
            weight: u64::from(config.weight),
            stage: drains.stage(name, backend),
            health: checks.and(way),
            here: checks_here.and(way),
            checks,
        }
    });
    let known: Vec<Known<'_>> = known.collect();
    let mut total = 0;
    let mut failed = 0;
    let (mut some_healthy, mut some_failed, mut some_unknown) = (false, false, false);
    let (mut some_failed_here, mut some_not_failed_here) = (false, false);
    for backend in &known {
        if backend.stage.is_some() || backend.weight == 0 {
            continue;
        }
        total += backend.weight;
        match backend.here {
            Health::Unhealthy => some_failed_here = true,
            Health::Healthy | Health::Unknown => some_not_failed_here = true,
        }
        match backend.health {
            Health::Healthy => some_healthy = true,
            Health::Unknown => some_unknown = true,
            Health::Unhealthy => {
                some_failed = true;
                failed += backend.weight;
            }
        }
    }
    let floor = u64::from(pool.health_floor_percent);
    let below_floor = some_failed && (total - failed) * 100 < total * floor;
    let condition = |backend: &Known<'_>| match (backend.stage, backend.health) {
        (Some(Stage::Expired), _) => Condition::Dead,
        (Some(_), Health::Unhealthy) if backend.checks == Health::Unhealthy => Condition::Dead,
        (Some(_), _) => Condition::Draining,
        (None, Health::Healthy) => Condition::InUse,
        (None, Health::Unknown) if some_healthy => Condition::Draining,
        (None, Health::Unknown) => Condition::InUse,
        (None, Health::Unhealthy) if below_floor => Condition::InUse,
        (None, Health::Unhealthy) if backend.checks != Health::Unhealthy => Condition::Draining,
        (None, Health::Unhealthy) if verdicts.lived(name, backend.name) => Condition::Dead,
        // Who is next is known when all have been checked.
        (None, Health::Unhealthy) if some_unknown => Condition::Dead,
        // Its slots were never its own: on another node they may long have been the next one's.
        (None, Health::Unhealthy) => Condition::Absent,
    };
    let mut healthy = false;
    let backends = known.iter().map(|backend| {
        let is = condition(backend);
        healthy |= is != Condition::Dead && backend.here == Health::Healthy;
        (backend.name.clone(), is)
    });
    let backends = backends.collect();
    Conditions {
        healthy,
        backends,
        below_floor,
        checked: !some_unknown,
        fresh: some_unknown && !some_healthy && !some_failed,
        forwarded,
        down: some_failed && !some_healthy && !some_unknown,
        cut_off: some_failed_here && !some_not_failed_here,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::agreement::Agreement, *};
    use crate::{
        config::from_toml,
        health::{
            Change,
            vote::{Candidate, Tally},
        },
        shared::Counted,
    };

    /// What was said of a backend, the first first.
    type History = &'static [Health];

    /// Of a pool whose addresses do not matter.
    fn local_conditions(pool: &Pool, verdicts: &Verdicts) -> Conditions {
        let none = None::<fn(IpAddr) -> Health>;
        conditions("p", pool, verdicts, &Drains::default(), none)
    }

    /// A pool of backends a, b, c and so on with these weights, and what is known of each.
    fn decide(settings: &str, backends: &[(u16, History)]) -> (Vec<Condition>, bool, bool) {
        let mut text = format!("{settings}\nhealth_check = {{ type = \"tcp\" }}\n[backends]\n");
        let mut verdicts = Verdicts::default();
        for (name, (number, (weight, history))) in ('a'..).zip(backends.iter().enumerate()) {
            let host = number + 1;
            text += &format!("{name} = {{ address = \"10.0.0.{host}:80\", weight = {weight} }}\n");
            for &health in *history {
                let change = Change {
                    pool: "p".into(),
                    backend: name.into(),
                    health,
                    reason: String::new(),
                };
                verdicts.note(change, ([10, 0, 0, 1], 80).into());
            }
        }
        let pool: Pool = from_toml(text.as_bytes()).expect("a pool");
        let found = local_conditions(&pool, &verdicts);
        (
            found.backends.into_values().collect(),
            found.below_floor,
            found.down,
        )
    }

    use Condition::{Absent, Dead, Draining, InUse};
    const UP: History = &[Health::Healthy];
    const DOWN: History = &[Health::Healthy, Health::Unhealthy];
    const NEVER_UP: History = &[Health::Unhealthy];
    const UNKNOWN: History = &[];

    #[test]
    fn the_failed_leave() {
        let found = decide("", &[(100, UP), (100, DOWN), (100, UP)]);
        assert_eq!(found, (vec![InUse, Dead, InUse], false, false));
    }

    #[test]
    fn who_never_came_has_nothing_to_lose() {
        let found = decide("", &[(100, UP), (100, NEVER_UP)]);
        assert_eq!(found.0, [InUse, Absent]);
        let found = decide("", &[(100, UP), (100, NEVER_UP), (100, UNKNOWN)]);
        assert_eq!(
            found.0,
            [InUse, Dead, Draining],
            "who is next is not known yet"
        );
        const BACK_AND_GONE: History = &[Health::Unhealthy, Health::Healthy, Health::Unhealthy];
        let found = decide("", &[(100, UP), (100, BACK_AND_GONE)]);
        assert_eq!(found.0, [InUse, Dead]);
    }

    #[test]
    fn half_of_the_weight_may_leave_and_no_more() {
        let found = decide("", &[(100, UP), (100, DOWN)]);
        assert_eq!(found, (vec![InUse, Dead], false, false));
        let found = decide("", &[(100, UP), (101, DOWN)]);
        assert_eq!(found, (vec![InUse, InUse], true, false));
        let found = decide("", &[(100, DOWN), (100, DOWN)]);
        assert_eq!(found, (vec![InUse, InUse], true, true));
    }

    #[test]
    fn the_floor_can_be_set_and_be_off() {
        let found = decide("health_floor_percent = 100", &[(300, UP), (1, DOWN)]);
        assert_eq!(found, (vec![InUse, InUse], true, false));
        let found = decide("health_floor_percent = 0", &[(1, DOWN), (1, DOWN)]);
        assert_eq!(found, (vec![Dead, Dead], false, true));
    }

    #[test]
    fn newcomers_wait_for_their_check_where_others_work() {
        let found = decide("", &[(100, UNKNOWN), (100, UNKNOWN)]);
        assert_eq!(found, (vec![InUse, InUse], false, false));
        let found = decide("", &[(100, UP), (100, UNKNOWN)]);
        assert_eq!(found, (vec![InUse, Draining], false, false));
    }

    /// A pool without checks, and what is known of the way to each of its backends.
    fn reached(settings: &str, ways: &[Health]) -> Conditions {
        let mut text = format!("{settings}\n[backends]\n");
        for host in 1..=ways.len() {
            text += &format!("b{host} = {{ address = \"10.0.0.{host}:80\" }}\n");
        }
        let pool: Pool = from_toml(text.as_bytes()).expect("a pool");
        let reach = |address: IpAddr| match address {
            IpAddr::V4(address) => ways[usize::from(address.octets()[3]) - 1],
            IpAddr::V6(_) => unreachable!(),
        };
        let (verdicts, drains) = (Verdicts::default(), Drains::default());
        conditions("p", &pool, &verdicts, &drains, Some(reach))
    }

    fn reached_conditions(settings: &str, ways: &[Health]) -> Vec<Condition> {
        reached(settings, ways).backends.into_values().collect()
    }

    #[test]
    fn newcomers_wait_for_their_next_hop_where_others_work() {
        use Health::{Healthy, Unknown};
        assert_eq!(
            reached_conditions("", &[Healthy, Unknown]),
            [InUse, Draining]
        );
        assert_eq!(
            reached_conditions("", &[Unknown, Unknown]),
            [InUse, InUse],
            "nobody is better"
        );
    }

    #[test]
    fn who_cannot_be_reached_gets_nothing_new_and_loses_nothing() {
        use Health::{Healthy, Unhealthy};
        let found = reached_conditions("", &[Healthy, Healthy, Unhealthy]);
        assert_eq!(found, [InUse, InUse, Draining]);
        // The floor holds here too.
        let found = reached("", &[Healthy, Unhealthy, Unhealthy]);
        assert!(found.below_floor && !found.down && !found.cut_off);
        assert!(found.backends.values().all(|is| *is == InUse));
        let found = reached("health_floor_percent = 0", &[Unhealthy, Unhealthy]);
        assert!(found.backends.values().all(|is| *is == Draining));
        assert!(found.down && found.cut_off && !found.healthy);
    }

    /// What others say is acted on, the floor with it; what this node sees decides whether it can
    /// serve.
    #[test]
    fn the_majority_decides_and_each_node_knows_what_it_reaches() {
        let text = "health_check = { type = \"tcp\" }\nhealth_floor_percent = 60\n[backends]\n\
                    a = { address = \"10.0.0.1:80\" }\nb = { address = \"10.0.0.2:80\" }";
        let pool: Pool = from_toml(text.as_bytes()).expect("a pool");
        let (casts, mut cast) = tokio::sync::mpsc::unbounded_channel();
        let mut verdicts = Verdicts::default();
        verdicts.agreement = Some(Agreement::new(casts));
        verdicts.find_votes("p", Some(&pool), None);
        for (name, backend) in &pool.backends {
            let change = Change {
                pool: "p".into(),
                backend: name.clone(),
                health: Health::Unhealthy,
                reason: String::new(),
            };
            verdicts.note(change, backend.address);
        }
        let of = |name| Candidate::new("p", name, pool.backends[name].address);
        assert_eq!(cast.try_recv(), Ok((of("a"), Some(false))));
        let look = |verdicts: &Verdicts| {
            let found = local_conditions(&pool, verdicts);
            let used = found.backends.into_values().collect::<Vec<_>>();
            (
                used,
                found.below_floor,
                found.down,
                found.cut_off,
                found.healthy,
            )
        };
        let vote = |verdicts: &mut Verdicts, name, healthy, unhealthy| {
            let votes = vec![(of(name), Tally { healthy, unhealthy })];
            verdicts.count(Counted::Votes(votes));
        };
        let alone = (vec![InUse, InUse], true, true, true, false);
        assert_eq!(look(&verdicts), alone);
        vote(&mut verdicts, "a", 2, 1);
        vote(&mut verdicts, "b", 2, 1);
        assert_eq!(look(&verdicts), alone, "not agreed yet");
        verdicts.count(Counted::Agreed(true));
        assert_eq!(
            look(&verdicts),
            (vec![InUse, InUse], false, false, true, false)
        );
        vote(&mut verdicts, "b", 1, 2);
        assert_eq!(
            look(&verdicts),
            (vec![InUse, InUse], true, false, true, false)
        );
        // A vote on what is not checked any more, or is another server now.
        let moved =
            "health_check = { type = \"tcp\" }\n[backends]\na = { address = \"10.0.0.9:80\" }";
        let moved: Pool = from_toml(moved.as_bytes()).expect("a pool");
        assert!(verdicts.keep("p", Some(&moved), None));
        assert!(!verdicts.find_votes("p", Some(&moved), None));
        vote(&mut verdicts, "a", 0, 3);
        assert_eq!(verdicts.checks("p", &moved, "a").0, Health::Unknown);
        verdicts.count(Counted::Agreed(false));
        assert_eq!(verdicts.checks("p", &moved, "a").0, Health::Unknown);
    }

    #[test]
    fn who_has_no_weight_does_not_count_for_the_floor() {
        let found = decide("", &[(0, UP), (100, DOWN), (100, UP)]);
        assert!(!found.1);
    }
}
