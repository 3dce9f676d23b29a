//! Putting the program on interfaces.

use std::{
    fs,
    io::{self, ErrorKind},
};

use anyhow::{Context, bail};
use aya::{
    Ebpf,
    programs::xdp::{Xdp, XdpMode},
};
use lb_common::abi::{MAX_DEVICES, egress};
use serde::{Deserialize, Serialize};

use super::{
    loader::{self, Maps},
    options::{Attach, Interface},
    pins::{Pins, Stamp},
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

/// Lets frames leave by these interfaces; returns their indexes with them.
///
/// # Errors
///
/// Names the interface that is not there.
pub(crate) fn allow(
    maps: &mut Maps,
    interfaces: &[Interface],
) -> anyhow::Result<Vec<(Interface, u32)>> {
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
        indexed.push((interface.clone(), index));
    }
    Ok(indexed)
}

/// Attaches the program to each interface, with everything pinned where it is to be, and ends
/// what an earlier agent has pinned.
///
/// # Errors
///
/// Names the interface that refuses the program. What was attached is detached with `ebpf`, or
/// with the pins.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    pins: Option<&mut (Pins, Stamp)>,
    interfaces: &[(Interface, u32)],
) -> anyhow::Result<Vec<Attachment>> {
    let Some((pins, stamp)) = pins else {
        let attach = |(interface, index): &_| attach_one(ebpf, None, interface, *index);
        return interfaces.iter().map(attach).collect();
    };
    let program = loader::xdp(ebpf, loader::PROGRAM)?.info()?.id();
    let maps = loader::map_ids(ebpf)?;
    pins.leave_other_namespaces(stamp)?;
    // First: a link may be the last thing that this agent does.
    pins.pin_maps(program, maps, stamp)
        .context("pinning maps")?;
    let attach = |(interface, index): &_| attach_one(ebpf, Some(pins), interface, *index);
    let attachments = interfaces
        .iter()
        .map(attach)
        .collect::<anyhow::Result<_>>()?;
    pins.keep_only(&interfaces.iter().map(|(_, index)| *index).collect());
    Ok(attachments)
}

fn attach_one(
    ebpf: &mut Ebpf,
    pins: Option<&mut Pins>,
    interface: &Interface,
    ifindex: u32,
) -> anyhow::Result<Attachment> {
    let name = &interface.name;
    let driver = driver(name);
    let attached = |mode: &str, reason| {
        tracing::info!(interface = name, mode, "attached");
        Attachment {
            interface: name.clone(),
            ifindex,
            mode: mode.to_owned(),
            driver: driver.clone(),
            reason,
        }
    };
    let mut place = Place {
        program: loader::xdp(ebpf, loader::PROGRAM)?,
        pins,
        interface: name,
        ifindex,
    };
    if interface.attach == Attach::Generic {
        place
            .put(XdpMode::Skb)
            .with_context(|| format!("attaching to {name} in generic mode"))?;
        let reason = "the configuration says so";
        return Ok(attached("generic", Some(reason.into())));
    }
    if interface.attach == Attach::Auto && place.is_generic() {
        place.put(XdpMode::Skb)?;
        let reason = "as an earlier agent has found it";
        return Ok(attached("generic", Some(reason.into())));
    }
    let reason = match place.put(XdpMode::Driver) {
        Ok(()) => return Ok(attached("native", None)),
        Err(error) => format!("{error:#}"),
    };
    if interface.attach == Attach::Native {
        bail!("{name} (driver {driver}) refuses native XDP: {reason}");
    }
    tracing::warn!(
        interface = name,
        driver,
        reason,
        "no native XDP here: falling back to generic, which is several times slower"
    );
    place
        .put(XdpMode::Skb)
        .with_context(|| format!("attaching to {name} in generic mode"))?;
    Ok(attached("generic", Some(reason)))
}

/// An interface that the program is put on.
struct Place<'a> {
    program: &'a mut Xdp,
    pins: Option<&'a mut Pins>,
    interface: &'a str,
    ifindex: u32,
}

impl Place<'_> {
    /// Whether an earlier agent has left it in generic mode.
    fn is_generic(&self) -> bool {
        let pins = self.pins.as_ref();
        pins.is_some_and(|pins| pins.link(self.ifindex, "generic").is_some())
    }

    /// In the place of what an earlier agent has left in this mode; or anew.
    fn put(&mut self, mode: XdpMode) -> anyhow::Result<()> {
        let put = self.try_put(mode);
        put.map_err(|error| {
            let busy = (error
                .chain()
                .filter_map(|cause| cause.downcast_ref::<io::Error>()))
            .any(|cause| cause.kind() == ErrorKind::ResourceBusy);
            match busy {
                true => error.context(
                    "another XDP program is there; if it is of an agent that died, `weir detach` \
                     ends it",
                ),
                false => error,
            }
        })
    }

    fn try_put(&mut self, mode: XdpMode) -> anyhow::Result<()> {
        let (word, other) = match mode {
            XdpMode::Skb => ("generic", "native"),
            _ => ("native", "generic"),
        };
        let Some(pins) = &mut self.pins else {
            self.program.attach(self.interface, mode)?;
            return Ok(());
        };
        if let Some(link) = pins.link(self.ifindex, word) {
            match self.program.attach_to_link(link) {
                Ok(_) => return Ok(()),
                // The interface that it led to is gone.
                Err(error) => tracing::debug!("a link that is pinned: {error}"),
            }
            pins.unlink(self.ifindex, word)?;
        }
        // A link cannot change its mode.
        if pins.unlink(self.ifindex, other)? {
            let interface = self.interface;
            tracing::warn!(interface, "detached for a moment, for another mode of XDP");
        }
        let link = self.program.attach(self.interface, mode)?;
        let link = self.program.take_link(link)?;
        pins.pin_link(link, self.ifindex, word)
            .context("pinning the link")
    }
}

/// The driver behind an interface; virtual interfaces have none.
fn driver(interface: &str) -> String {
    fs::read_link(format!("/sys/class/net/{interface}/device/driver"))
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "virtual".into())
}
