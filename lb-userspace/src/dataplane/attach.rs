//! Putting the program on interfaces.

use std::fs;

use anyhow::{Context, bail};
use aya::{Ebpf, programs::xdp::XdpMode};
use lb_common::abi::{MAX_DEVICES, egress};
use serde::{Deserialize, Serialize};

use super::{
    loader::{self, Maps},
    options::{Attach, Interface},
};

/// Where the program runs, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// `native` (in the driver) or `generic` (slower, behind the kernel's own receive path).
    pub mode: String,
    /// The driver's name, as far as the kernel tells.
    pub driver: String,
    /// Why it is not native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Lets frames leave by these interfaces, and attaches the program to each.
///
/// # Errors
///
/// Names the interface that is not there or that refuses the program. What was attached is
/// detached with `ebpf`.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    maps: &mut Maps,
    interfaces: &[Interface],
) -> anyhow::Result<Vec<Attachment>> {
    if interfaces.len() > usize::from(MAX_DEVICES) {
        bail!(
            "{} interfaces are more than {MAX_DEVICES}",
            interfaces.len()
        );
    }
    let mut indexed = Vec::new();
    for (device, interface) in (0..).zip(interfaces) {
        let index = nix::net::if_::if_nametoindex(interface.name.as_str())
            .with_context(|| format!("there is no interface {}", interface.name))?;
        maps.egress.insert(index, egress(index, 0, device), 0)?;
        maps.devices
            .set(device.into(), index, None, 0)
            .with_context(|| format!("allowing frames out of {}", interface.name))?;
        indexed.push((interface, index));
    }
    indexed
        .into_iter()
        .map(|(interface, index)| attach_one(ebpf, interface, index))
        .collect()
}

fn attach_one(ebpf: &mut Ebpf, interface: &Interface, ifindex: u32) -> anyhow::Result<Attachment> {
    let name = &interface.name;
    let program = loader::xdp(ebpf, loader::PROGRAM)?;
    let driver = driver(name);
    let attached = |mode: &str, reason| Attachment {
        interface: name.clone(),
        ifindex,
        mode: mode.to_owned(),
        driver: driver.clone(),
        reason,
    };
    if interface.attach != Attach::Generic {
        match program.attach(name, XdpMode::Driver) {
            Ok(_) => return Ok(attached("native", None)),
            Err(error) => {
                let reason = describe(&error);
                if interface.attach == Attach::Native {
                    bail!("{name} (driver {driver}) refuses native XDP: {reason}");
                }
                tracing::warn!(
                    interface = name,
                    driver,
                    reason,
                    "no native XDP here: falling back to generic, which is several times slower"
                );
                program
                    .attach(name, XdpMode::Skb)
                    .with_context(|| format!("attaching to {name} in generic mode"))?;
                return Ok(attached("generic", Some(reason)));
            }
        }
    }
    program
        .attach(name, XdpMode::Skb)
        .with_context(|| format!("attaching to {name} in generic mode"))?;
    Ok(attached(
        "generic",
        Some("the configuration says so".into()),
    ))
}

/// The error with all its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The driver behind an interface; virtual interfaces have none.
fn driver(interface: &str) -> String {
    fs::read_link(format!("/sys/class/net/{interface}/device/driver"))
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "virtual".into())
}
