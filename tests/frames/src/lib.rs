//! Frames by the million: a generator, a relay and a sink, all in the kernel.
//!
//! The generator is an XDP program that BPF_PROG_TEST_RUN runs with live frames: over six
//! million frames a second from one core, as if a NIC had received and sent them on.

mod generator;
mod native;
mod stream;

pub use generator::Generator;
pub use native::{Relay, Sink};
pub use stream::{End, Sources, Template};

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, programs::Xdp};
use lab::Namespace;
use lb_userspace::dataplane::FRAMES_OBJECT;

/// The programs, none of them loaded yet.
fn object() -> Result<Ebpf> {
    EbpfLoader::new()
        .load(FRAMES_OBJECT)
        .context("loading the generator's object")
}

/// One of them, loaded.
fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name);
    let program: &mut Xdp = program
        .with_context(|| format!("no program {name}"))?
        .try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program)
}

/// The address of a NIC.
///
/// # Errors
/// There is no such NIC in the namespace.
pub fn mac(namespace: &Namespace, device: &str) -> Result<[u8; 6]> {
    namespace.run(|| {
        let addresses = nix::ifaddrs::getifaddrs()?;
        let of_device = addresses.filter(|entry| entry.interface_name == device);
        let mut macs = of_device.filter_map(|entry| entry.address?.as_link_addr()?.addr());
        macs.next()
            .with_context(|| format!("no NIC {device} in {}", namespace.name()))
    })?
}
