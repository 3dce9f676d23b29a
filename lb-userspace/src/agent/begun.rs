//! An agent that begins: its sockets, those of the agent before it or new ones, and the data path.

use std::{fs, sync::Arc};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use super::running::Running;
use crate::{
    api,
    config::{Agent, Config, FullNat, XdpMode},
    dataplane::{Attach, DataPlane, Interface, Limits, Options, Pin},
    ha, health,
    proxy::{Listening, Proxy, traces::Traces},
    shared,
    state::{self, Known, Parts},
    takeover::{self, Door, Sockets, Taken},
};

/// What an agent has before its data path.
pub(super) struct Begun {
    sockets: Sockets,
    listening: Listening,
    known: Vec<Known>,
}

impl Begun {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let sync = config.ha.sync.as_ref();
        Ok(Self {
            sockets: Sockets {
                api: api::listen(&config.agent.admin)?,
                door: Door::open(&config.agent)?,
                sync: sync.map(|sync| ha::sync::listen(sync.listen)).transpose()?,
            },
            listening: Listening::new(),
            known: Vec::new(),
        })
    }

    /// Goes on with what another agent has, as far as this one wants the same.
    pub(super) fn taken_over(
        config: &Config,
        taken: Taken,
    ) -> (anyhow::Result<Self>, takeover::Link) {
        let Taken {
            link,
            admin,
            admin_tcp,
            door,
            sync,
            listening,
            known,
        } = taken;
        let sync = match (&config.ha.sync, sync) {
            (Some(sync), Some((old, socket))) if sync.listen == old => Ok(Some(socket)),
            (sync, _) => {
                let sync = sync.as_ref();
                sync.map(|sync| ha::sync::listen(sync.listen)).transpose()
            }
        };
        let api = api::Listeners::taken_over(&config.agent.admin, admin, admin_tcp);
        let sockets = api.and_then(|api| {
            let sync = sync?;
            Ok(Sockets { api, door, sync })
        });
        let begun = sockets.map(|sockets| Self {
            sockets,
            listening,
            known,
        });
        (begun, link)
    }

    /// Has the data path and the proxy serve.
    pub(super) fn start(
        self,
        config: &Config,
        votes: Option<shared::Votes>,
    ) -> anyhow::Result<Running> {
        let dataplane = DataPlane::load(&options(config)).context("loading the data path")?;
        warn_of_sysctls();
        let (targets, checked) = mpsc::unbounded_channel();
        let verdicts = health::spawn(checked);
        let traces = config
            .agent
            .traces
            .as_ref()
            .map(Traces::start)
            .transpose()?;
        let (traces, exporting) = traces.unzip();
        let proxy = Proxy::new(config.agent.proxy.workers as usize)
            .take_over(self.listening)
            .tracing(traces);
        let (serving, served) = watch::channel(Arc::default());
        let tables = dataplane.peers();
        let (state, owner) = state::spawn(Parts {
            config: config.clone(),
            dataplane,
            proxy,
            targets,
            known: self.known,
            verdicts,
            serving,
            votes,
        })?;
        Ok(Running {
            sockets: self.sockets,
            state,
            owner,
            exporting,
            served,
            tables,
        })
    }
}

fn options(config: &Config) -> Options {
    let agent = &config.agent;
    let interfaces = agent.interfaces.iter().map(|interface| Interface {
        name: interface.name.clone(),
        attach: match interface.xdp {
            XdpMode::Auto => Attach::Auto,
            XdpMode::Native => Attach::Native,
            XdpMode::Generic => Attach::Generic,
        },
    });
    Options {
        interfaces: interfaces.collect(),
        hash_key: agent.hash_key.0,
        limits: Limits {
            services: agent.limits.services,
            backends: agent.limits.backends,
            flows: agent.limits.flows,
            translations: translations(agent),
        },
        pin: agent.pin.directory().map(|directory| Pin {
            directory: directory.to_owned(),
            source_addresses: agent.full_nat.addresses.clone(),
            peer_source_addresses: agent.full_nat.peer_addresses.clone(),
        }),
        tell_peers: config.ha.sync.is_some(),
    }
}

/// Room for flows of `full-nat`, for which memory is taken at once: where there can be none of
/// them, none.
fn translations(agent: &Agent) -> u32 {
    let FullNat {
        addresses,
        peer_addresses,
        ..
    } = &agent.full_nat;
    match addresses.is_empty() && peer_addresses.is_empty() {
        true => 0,
        false => agent.limits.flows,
    }
}

/// Says early what would otherwise be packets dropped one by one.
fn warn_of_sysctls() {
    for (family, sysctl) in [
        ("IPv4", "/proc/sys/net/ipv4/ip_forward"),
        ("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ] {
        // Not there: the kernel has no such family.
        if fs::read_to_string(sysctl).is_ok_and(|value| value.trim() == "0") {
            tracing::warn!(
                "{sysctl} is 0: the kernel tells no way for {family} packets back to clients, \
                 so answers through `nat` and `full-nat` will be lost; set it to 1"
            );
        }
    }
}
