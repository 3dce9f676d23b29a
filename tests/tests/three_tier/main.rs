//! The files of examples/three-tier, with real servers in every tier: under load, servers of each
//! tier are added, drained, replaced and killed.

mod clients;
mod scene;

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};

use clients::{Clients, Failure, Outcome};
use scene::{Scene, Tier};

/// How long the load goes on before, between and after what happens.
const WHILE: Duration = Duration::from_secs(1);

#[test]
fn every_tier_changes_and_no_request_is_lost_for_it() -> Result<()> {
    let mut scene = Scene::new()?;
    let clients = Clients::start(&scene)?;
    sleep(WHILE);
    // All tiers at the same time: what waits, waits for connections to end.
    std::thread::scope(|scope| {
        let tiers = scene.tiers.iter_mut().map(|tier| {
            scope.spawn(move || {
                tier.add(0)?;
                tier.drain_and_return()?;
                tier.replace(1)
            })
        });
        let tiers: Vec<_> = tiers.collect();
        tiers.into_iter().try_for_each(|tier| match tier.join() {
            Ok(result) => result,
            Err(_) => panic!("see above"),
        })
    })?;
    sleep(WHILE);
    let planned = clients.failures();
    ensure!(planned.is_empty(), "by changes alone: {planned:#?}");
    for tier in &mut scene.tiers {
        tier.kill()?;
        sleep(WHILE);
    }
    let outcome = clients.stop()?;
    only_those_under_way_at_the_killed(&mut scene, &outcome)?;
    written_once(&mut scene, &outcome)?;
    println!(
        "{} requests, {} lost",
        outcome.requests,
        outcome.failures.len()
    );
    ensure!(outcome.requests > 500, "{outcome:#?}");
    Ok(())
}

/// What failed may not be asked twice, and was at a server of a tier when that was killed: the
/// one that was nearest to it says so.
fn only_those_under_way_at_the_killed(scene: &mut Scene, outcome: &Outcome) -> Result<()> {
    let logged = std::fs::read_to_string(scene.access_log())?;
    let errors: Vec<String> = scene.web_errors();
    // 8 clients have an order under way at almost all times, and a third of them is at the killed.
    ensure!(
        !outcome.failures.is_empty(),
        "no order was under way at the killed: {outcome:#?}"
    );
    for failure in &outcome.failures {
        let Failure {
            order,
            status,
            body,
            ..
        } = failure;
        let order = order
            .as_ref()
            .with_context(|| format!("not an order: {failure:#?}"))?;
        let at_web = || {
            let line = logged.lines().find(|line| line.contains(&**order));
            let line: serde_json::Value = serde_json::from_str(line.unwrap_or("null")).ok()?;
            let killed = scene.killed(Tier::WEB)?;
            (line["status"] == 502 && line["backend"] == killed).then_some(killed)
        };
        // A connection that stood, and broke before the answer.
        let at_app = || {
            let mut lines = errors.iter().filter(|line| line.contains(&**order));
            let last = lines.next_back()?;
            let steps = ["while reading response header", "while sending request"];
            steps
                .iter()
                .any(|step| last.contains(step))
                .then_some("an application server")
        };
        let at_db = || {
            let killed = scene.killed(Tier::DB)?;
            (*status == 500 && body.trim() == format!("lost with {killed}")).then_some(killed)
        };
        let at = at_web().or_else(at_app).or_else(at_db);
        let at = at.with_context(|| {
            let lines = logged.lines().chain(errors.iter().map(String::as_str));
            let said: Vec<_> = lines.filter(|line| line.contains(&**order)).collect();
            format!("it was not at a killed one: {failure:?}: {said:#?}")
        })?;
        println!("lost: order {order} at {at}");
    }
    Ok(())
}

/// Every order that was confirmed is in one database; none, whatever became of it, is in two.
fn written_once(scene: &mut Scene, outcome: &Outcome) -> Result<()> {
    let mut written = scene.orders()?;
    written.sort_unstable();
    for pair in written.windows(2) {
        ensure!(pair[0] != pair[1], "order {} was written twice", pair[0]);
    }
    for order in &outcome.orders {
        ensure!(
            written.binary_search(order).is_ok(),
            "order {order} is in no database"
        );
    }
    ensure!(
        outcome.orders.len() > 100,
        "{} orders",
        outcome.orders.len()
    );
    Ok(())
}
