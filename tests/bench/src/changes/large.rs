//! Four thousand services and a hundred thousand backends.

use std::time::Instant;

use anyhow::Result;
use lab::Lab;
use lb_userspace::config::{Config, from_json};
use tokio::runtime::Runtime;

use super::{
    Scale,
    report::{ALL_FIRST, ALL_LAST, EACH_FIRST, EACH_LAST, Report},
    scene::{self, Scene},
};

/// Backends of a pool that all services share.
const SHARED: usize = 100;

/// From the document to the maps; and changes of one backend beside so many.
pub(crate) fn start(runtime: &Runtime, lab: &Lab, scale: Scale, report: &mut Report) -> Result<()> {
    let document = scene::document(scale.services, scale.backends);
    let text = scene::text(lab, scale, &document);
    let started = Instant::now();
    let config: Config = from_json(text.as_bytes(), "")?;
    report.add("start: reading the document", started.elapsed());
    let started = Instant::now();
    config.check()?;
    report.add("start: checking it", started.elapsed());
    let started = Instant::now();
    let scene = Scene::start(lab, scale, config)?;
    report.add(
        "start: loading, compiling, filling the maps",
        started.elapsed(),
    );
    runtime.block_on(async {
        for round in 0..scale.rounds {
            for change in scene::of_one(round) {
                let started = Instant::now();
                scene.state.change_here(change).await?;
                report.add("one backend beside all others", started.elapsed());
            }
        }
        flip_pools(&scene, scale, report).await
    })?;
    scene.end(runtime)
}

/// A server dies that is in every pool.
async fn flip_pools(scene: &Scene, scale: Scale, report: &mut Report) -> Result<()> {
    let first: Vec<usize> = (0..scale.services)
        .map(|pool| pool * scale.backends / scale.services)
        .collect();
    for _ in 0..scale.rounds.div_ceil(6) {
        let addresses: Vec<_> = first
            .iter()
            .map(|backend| scene::address(*backend))
            .collect();
        let watched = scene.watcher.watch(&addresses)?;
        let started = Instant::now();
        let watching = tokio::task::spawn_blocking(move || watched.changed(started));
        for (pool, backend) in first.iter().enumerate() {
            let verdict = scene::verdict(pool, *backend, false);
            scene.verdicts.send(verdict).await?;
        }
        let (first_seen, last_seen) = watching.await??;
        report.add(EACH_FIRST, first_seen);
        report.add(EACH_LAST, last_seen);
        for (pool, backend) in first.iter().enumerate() {
            let verdict = scene::verdict(pool, *backend, true);
            scene.verdicts.send(verdict).await?;
        }
        for (pool, backend) in first.iter().enumerate() {
            scene.is_in_use(pool, *backend).await?;
        }
    }
    Ok(())
}

/// A backend fails that all services have.
pub(crate) fn flips(runtime: &Runtime, lab: &Lab, scale: Scale, report: &mut Report) -> Result<()> {
    let document = scene::shared(scale.services, SHARED);
    let scene = Scene::start(lab, scale, scene::config(lab, scale, &document)?)?;
    runtime.block_on(async {
        for backend in 0..SHARED {
            let verdict = scene::verdict(0, backend, true);
            scene.verdicts.send(verdict).await?;
        }
        for round in 0..scale.rounds.div_ceil(3) {
            for backend in 0..SHARED {
                scene.is_in_use(0, backend).await?;
            }
            let watched = scene.watcher.watch(&[scene::address(round)])?;
            let started = Instant::now();
            let watching = tokio::task::spawn_blocking(move || watched.changed(started));
            scene.verdicts.send(scene::verdict(0, round, false)).await?;
            let (first, last) = watching.await??;
            report.add(ALL_FIRST, first);
            report.add(ALL_LAST, last);
            scene.verdicts.send(scene::verdict(0, round, true)).await?;
        }
        anyhow::Ok(())
    })?;
    scene.end(runtime)
}
