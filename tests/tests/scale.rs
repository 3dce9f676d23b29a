//! Many of everything, and many changes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{
    Lab, Plan,
    load::{Load, Work},
    servers,
};
use serde_json::{Value, json};
use weir_tests::{
    agent::{Agent, pool},
    conversations::Conversations,
};

const ECHO: u16 = 7;
const WEB: u16 = 80;

/// Changes from eight clients at once, faster than they can be made one by one, under traffic
/// that never stops: no packet finds a slot that is half written or that has no backend.
#[test]
fn thousands_of_changes_lose_nothing() -> Result<()> {
    const CLIENTS: usize = 8;
    const CHANGES: u64 = 6000;
    let lab = Lab::new(&Plan {
        backends: 4,
        ..Plan::default()
    })?;
    let echo = lab.backends().iter().map(|at| servers::echo(at, ECHO));
    let _echo = echo.collect::<Result<Vec<_>>>()?;
    let web = lab.backends().iter().map(|at| servers::nginx(at, WEB));
    let _web = web.collect::<Result<Vec<_>>>()?;
    let address =
        |place: usize, port| SocketAddr::new(lab.backends()[place].addresses.v4.into(), port);
    let vip = lab.vips()[0].v4;
    let service = |name: &str, port: u16| json!({ "address": vip, "port": port, "protocol": "tcp", "mode": "nat", "pool": name });
    let members = |port| pool((0..4).map(|place| (NAMES[place], address(place, port))), "");
    let document = json!({
        "pools": { "echo": members(ECHO), "web": members(WEB) },
        "services": { "echo": service("echo", ECHO), "web": service("web", WEB) },
    });
    let agent = Agent::start(&lab, &document)?;
    let talks = Conversations::start(
        lab.client(),
        SocketAddr::new(vip.into(), ECHO),
        100,
        Duration::from_millis(100),
    )?;
    let work = Work {
        clients: 8,
        per_connection: 1,
        ..Work::endless(SocketAddr::new(vip.into(), WEB))
    };
    let short = Load::http(lab.client(), work)?;
    let turn = &AtomicU64::new(0);
    thread::scope(|scope| {
        let client = || -> Result<()> {
            loop {
                let number = turn.fetch_add(1, Ordering::Relaxed);
                if number >= CHANGES {
                    return Ok(());
                }
                let (pool, port) = [("echo", ECHO), ("web", WEB)][number as usize % 2];
                // The first backend always stays; the last comes and goes.
                let place = 1 + number as usize / 2 % 3;
                let path = format!("/v1/pools/{pool}/backends/{}", NAMES[place]);
                if place == 3 && number % 4 < 2 {
                    let (status, answer) = agent.request("DELETE", &path, "")?;
                    ensure!(status == 204 || status == 404, "{status} {answer}");
                    continue;
                }
                let weight = 20 + number % 200;
                let body = json!({ "address": address(place, port), "weight": weight });
                agent.change("PUT", &path, &body)?;
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| {
            let done = client.join();
            done.map_err(|_| anyhow::anyhow!("a client panicked"))?
        })
    })?;
    let results = short.stop();
    let report = talks.finish()?;
    println!("{report:?}, {results:?}");
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!((results.failed, results.failures), (0, vec![]));
    let mut all = vec![agent.status()?.drops];
    all.extend(
        agent
            .services()?
            .into_values()
            .map(|service| service.counters.drops),
    );
    for drops in all {
        for reason in ["no_backend", "backend_dead", "inconsistent"] {
            assert!(!drops.contains_key(reason), "{drops:?}");
        }
    }
    Ok(())
}

const NAMES: [&str; 4] = ["be1", "be2", "be3", "be4"];

/// 4,096 services and 100,000 backends are loaded, work, and change.
#[test]
fn all_that_there_may_be() -> Result<()> {
    const SERVICES: u32 = 4096;
    const BACKENDS: u32 = 100_000;
    let lab = Lab::new(&Plan::default())?;
    let web = lab.backends().iter().map(|at| servers::nginx(at, WEB));
    let _web = web.collect::<Result<Vec<_>>>()?;
    let vip = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
    let filler = |number: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 20, 0, 1)) + number);
    let real = lab.backends().iter().map(|at| {
        let address = SocketAddr::new(at.addresses.v4.into(), WEB);
        (at.name.as_str(), address)
    });
    let real: Vec<_> = real.collect();
    let mut services = serde_json::Map::new();
    let mut pools = serde_json::Map::new();
    for number in 0..SERVICES {
        // The last is the one that is tried: neither its slots nor its backends are among the first,
        // which packets find in another way.
        let (address, members) = match number + 1 == SERVICES {
            true => (lab.vips()[0].v4, pool(real.iter().copied(), "")),
            false => {
                let share = |number| u64::from(number) * u64::from(BACKENDS - 3);
                let first = share(number) / u64::from(SERVICES - 1);
                let last = share(number + 1) / u64::from(SERVICES - 1);
                let members = (first..last).map(|backend| {
                    let address = SocketAddr::new(filler(backend as u32).into(), WEB);
                    (format!("b{backend}"), json!({ "address": address }))
                });
                let members: serde_json::Map<_, _> = members.collect();
                (vip(number), json!({ "backends": members }))
            }
        };
        let service = json!({
            "address": address, "port": WEB, "protocol": "tcp", "mode": "nat",
            "pool": format!("p{number}"),
        });
        services.insert(format!("s{number}"), service);
        pools.insert(format!("p{number}"), members);
    }
    let agent = Agent::start(&lab, &json!({ "services": services, "pools": pools }))?;
    let status = agent.status()?;
    assert_eq!(
        (status.services, status.backends, status.backends_in_use),
        (SERVICES as usize, BACKENDS as usize, BACKENDS as usize)
    );
    let target = SocketAddr::new(lab.vips()[0].v4.into(), WEB);
    let ask = || Load::http(lab.client(), Work::new(target, 200))?.finish();
    assert_eq!(ask()?.failed, 0);
    let last = SERVICES - 1;
    let path = format!("/v1/pools/p{last}/backends/{}", real[0].0);
    agent.change("DELETE", &path, &Value::Null)?;
    let results = ask()?;
    assert_eq!(
        (results.failed, results.by_backend.get(real[0].0)),
        (0, None)
    );
    let add = |name: &str, address: SocketAddr| {
        let body = json!({ "address": address }).to_string();
        agent.request("PUT", &format!("/v1/pools/p{last}/backends/{name}"), &body)
    };
    // The place of the one that was removed is kept for its flows.
    let other = SocketAddr::new([172, 31, 0, 1].into(), WEB);
    let (status, answer) = add("other", other)?;
    assert_eq!(status, 409, "{answer}");
    assert!(answer.contains("agent.limits.backends"), "{answer}");
    let (status, answer) = add(real[0].0, real[0].1)?;
    assert_eq!(status, 201, "{answer}");
    let (status, answer) = add("other", other)?;
    assert_eq!(status, 422, "{answer}");
    assert!(answer.contains("at most 100000 backends"), "{answer}");
    assert!(ask()?.by_backend.contains_key(real[0].0));
    Ok(())
}
