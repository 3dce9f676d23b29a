//! Programs for a device's receiving side.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, xdp::DevMap},
    programs::{Xdp, xdp::XdpMode},
};
use lab::Namespace;

use crate::{object, program};

/// Counts frames and drops them before the kernel sees them.
pub struct Sink {
    ebpf: Ebpf,
    swallowed: PerCpuArray<MapData, u64>,
}

impl Sink {
    /// A sink that is nowhere yet.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn new() -> Result<Self> {
        let mut ebpf = object()?;
        program(&mut ebpf, "sink")?;
        let map = ebpf.take_map("SWALLOWED").context("no map SWALLOWED")?;
        let swallowed = map.try_into()?;
        Ok(Self { ebpf, swallowed })
    }

    /// Its program, for [`lab::Lab::replace_program`].
    ///
    /// # Errors
    /// It is not loaded.
    pub fn program(&self) -> Result<BorrowedFd<'_>> {
        let program: &Xdp = self
            .ebpf
            .program("sink")
            .context("no program")?
            .try_into()?;
        Ok(program.fd()?.as_fd())
    }

    /// Puts it on a device that has no program, until this is dropped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach(&mut self, namespace: &Namespace, device: &str) -> Result<()> {
        attach(&mut self.ebpf, "sink", namespace, device)
    }

    /// Frames that it has swallowed so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn swallowed(&self) -> Result<u64> {
        Ok(self.swallowed.get(&0, 0)?.iter().sum())
    }
}

/// Sends all that comes in by one device out of another, unread and unchanged: the least that a
/// balancer can do.
pub struct Relay {
    _ebpf: Ebpf,
    _way: DevMap<MapData>,
}

impl Relay {
    /// From one device to another of the same namespace, until this is dropped.
    ///
    /// # Errors
    /// There is no such device, or it has a program.
    pub fn new(namespace: &Namespace, from: &str, to: &str) -> Result<Self> {
        let mut ebpf = object()?;
        program(&mut ebpf, "relay")?;
        let map = ebpf.take_map("WAY").context("no map WAY")?;
        let mut way: DevMap<_> = map.try_into()?;
        namespace.run(|| -> Result<()> {
            let out = nix::net::if_::if_nametoindex(to)?;
            Ok(way.set(0, out, None, 0)?)
        })??;
        attach(&mut ebpf, "relay", namespace, from)?;
        Ok(Self {
            _ebpf: ebpf,
            _way: way,
        })
    }
}

fn attach(ebpf: &mut Ebpf, name: &str, namespace: &Namespace, device: &str) -> Result<()> {
    let program: &mut Xdp = ebpf.program_mut(name).context("no program")?.try_into()?;
    namespace
        .run(|| program.attach(device, XdpMode::Driver))?
        .with_context(|| format!("attaching {name} to {device} in {}", namespace.name()))?;
    Ok(())
}
