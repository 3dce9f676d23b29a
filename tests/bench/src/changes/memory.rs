//! Memory, by what it is for.

use std::{env, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use serde::{Deserialize, Serialize};

use super::{
    Scale,
    report::Report,
    scene::{self, Scene},
};

/// Bytes of a process and of the maps that it has made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) process: u64,
    pub(crate) maps: u64,
}

/// What [`tell`] tells.
#[derive(Serialize, Deserialize)]
struct Told {
    all: Memory,
    /// Bytes of an entry in each of [`FLOWS`].
    flows: Vec<u64>,
}

/// What is remembered of flows, and in which maps.
const FLOWS: [(&str, &[&str]); 3] = [
    ("a flow of a tracked slot", &["FLOWS"]),
    ("a flow of `full-nat`", &["NAT_FORWARD", "NAT_RETURN"]),
    ("a client's affinity", &["AFFINITIES"]),
];

/// What a service and a backend more take, with tables made for what there is, and a flow.
pub(crate) fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    let (few, many) = (scale.services / 8, scale.services);
    let start = ask(few, few)?.all;
    let services = ask(many, many)?.all;
    let Told {
        all: backends,
        flows,
    } = ask(many, scale.backends)?;
    let each = |small: Memory, large: Memory, count: usize| Memory {
        process: large.process.saturating_sub(small.process) / count as u64,
        maps: large.maps.saturating_sub(small.maps) / count as u64,
    };
    report.memory(
        "a service with a pool of one backend",
        each(start, services, many - few),
    );
    report.memory(
        "a backend more",
        each(services, backends, scale.backends - many),
    );
    report.memory("all of it", backends);
    for ((name, _), maps) in FLOWS.into_iter().zip(flows) {
        report.memory(name, Memory { process: 0, maps });
    }
    Ok(())
}

/// What so many services take, and so many backends in all: in a process of its own, in which nothing
/// was before that may have left memory to it.
fn ask(services: usize, backends: usize) -> Result<Told> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["changes", "--memory"]);
    let output = command
        .args([services, backends].map(|count| count.to_string()))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "measuring memory: {said}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Tells [`ask`].
pub(crate) fn tell(services: usize, backends: usize) -> Result<()> {
    let scale = Scale {
        services,
        backends,
        rounds: 0,
    };
    let told = scene::inside(|lab, runtime| {
        let document = scene::document(services, backends);
        let config = scene::config(lab, scale, &document)?;
        drop(document);
        let scene = Scene::start(lab, scale, config)?;
        let flows = FLOWS.iter().map(|(_, maps)| entry_bytes(&scene, maps));
        let told = Told {
            all: now(&scene)?,
            flows: flows.collect::<Result<_>>()?,
        };
        scene.end(runtime)?;
        Ok(told)
    })?;
    println!("{}", serde_json::to_string(&told)?);
    Ok(())
}

fn now(scene: &Scene) -> Result<Memory> {
    let mut maps = 0;
    for &id in &scene.maps {
        maps += map_bytes(id)?;
    }
    Ok(Memory {
        process: resident()?,
        maps: maps + scene.watcher.ring_bytes()?,
    })
}

/// Bytes that a map takes now, by the kernel's reckoning.
pub(crate) fn map_bytes(id: u32) -> Result<u64> {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    let map = MapInfo::from_id(id)?.fd()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("the kernel does not tell")?.trim().parse()?)
}

/// Bytes of an entry in each of these maps, together.
fn entry_bytes(scene: &Scene, names: &[&str]) -> Result<u64> {
    let of_one = |name: &&str| -> Result<u64> {
        let (id, entries) = find(scene, name)?;
        Ok(map_bytes(id)? / u64::from(entries))
    };
    names.iter().map(of_one).sum()
}

/// A map's id, and how many entries it may have.
fn find(scene: &Scene, name: &str) -> Result<(u32, u32)> {
    for &id in &scene.maps {
        let info = MapInfo::from_id(id)?;
        if info.name_as_str() == Some(name) {
            return Ok((id, info.max_entries()));
        }
    }
    anyhow::bail!("there is no map {name}")
}

/// Resident memory of this process, without pages of files and of maps.
fn resident() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.context("the kernel does not tell")?;
    Ok(kilobytes.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
