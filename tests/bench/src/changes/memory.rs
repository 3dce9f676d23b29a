//! Memory, by what it is for.

use std::fs;

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use lab::Lab;

use super::{
    Scale,
    report::Report,
    scene::{self, Scene},
};

/// Bytes of this process and of the maps that it has made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) process: u64,
    pub(crate) maps: u64,
}

/// What a service and a backend more take, with tables made for what there is, and a flow.
pub(crate) fn measure(lab: &Lab, scale: Scale, report: &mut Report) -> Result<()> {
    let (few, many) = (scale.services / 8, scale.services);
    let mut flows = Vec::new();
    let mut of = |services, backends| -> Result<Memory> {
        let document = scene::document(services, backends);
        let scale = Scale {
            services,
            backends,
            ..scale
        };
        let config = scene::config(lab, scale, &document)?;
        drop(document);
        let scene = Scene::start(lab, scale, config)?;
        trim();
        flows = flow_bytes(&scene)?;
        now(&scene)
    };
    let start = of(few, few)?;
    let services = of(many, many)?;
    let backends = of(many, scale.backends)?;
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
    for (name, maps) in flows {
        report.memory(name, Memory { process: 0, maps });
    }
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

/// Bytes of a flow in each of the tables that remember some.
fn flow_bytes(scene: &Scene) -> Result<Vec<(&'static str, u64)>> {
    let of_all = |name: &str| -> Result<u64> {
        let (id, entries) = find(scene, name)?;
        Ok(map_bytes(id)? / u64::from(entries))
    };
    let full_nat = of_all("NAT_FORWARD")? + of_all("NAT_RETURN")?;
    Ok(vec![
        ("a flow of a tracked slot", of_all("FLOWS")?),
        ("a flow of `full-nat`", full_nat),
        ("a client's affinity", of_all("AFFINITIES")?),
    ])
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

/// Gives freed memory back, so that it is not taken for what is used.
fn trim() {
    // SAFETY: takes no pointers, and other threads may go on allocating meanwhile.
    unsafe { libc::malloc_trim(0) };
}
