//! `weir agent`: everything put together, until a signal ends it.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    api,
    config::{Config, XdpMode},
    dataplane::{Attach, DataPlane, Interface, Limits, Options, Pin},
    ha, health,
    proxy::{Proxy, access_log},
    shared,
    state::{self, Parts},
};

/// Where the configuration is.
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// In etcd, for what nodes share, and in a file, for what is this one's own.
    Shared(shared::Options),
}

/// Loads the configuration and the data path, and runs until SIGINT or SIGTERM.
///
/// # Errors
///
/// What is wrong with the configuration, the sockets or the data path.
pub async fn run(source: Source) -> anyhow::Result<()> {
    let (config, opened) = match source {
        Source::File(file) => (Config::load(&file)?, None),
        Source::Shared(options) => {
            let opened = shared::open(options).await?;
            (opened.config.clone(), Some(opened))
        }
    };
    raise_descriptors();
    // Before the data path: an agent that is running keeps its own.
    let listeners = api::listen(&config.agent.admin).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("opening access logs anew");
            access_log::reopen();
        }
    });

    let dataplane = DataPlane::load(&options(&config)).context("loading the data path")?;
    warn_of_sysctls();
    let (targets, checked) = mpsc::unbounded_channel();
    let verdicts = health::spawn(checked);
    let admin = config.agent.admin.clone();
    let proxy = Proxy::new(config.agent.proxy.workers as usize);
    let (serving, served) = watch::channel(Arc::default());
    let initial = config.clone();
    let tables = dataplane.peers();
    let (state, owner) = state::spawn(Parts {
        config,
        dataplane,
        proxy,
        targets,
        verdicts,
        serving,
    })?;
    let (state, following) = match opened {
        None => (state, None),
        Some(opened) => {
            let (handle, running) = shared::spawn(opened, state.clone())?;
            (state.sharing(handle), Some(running))
        }
    };
    let sync = ha::sync::start(&initial.ha, tables)?;
    // Last: whoever takes addresses can serve them.
    let ha = ha::spawn(&initial.ha, served.clone())?;
    let synced = sync.as_ref().map(|sync| sync.synced.clone());
    let routes = ha::routes::spawn(&initial, served, synced)?;
    if let Some(sync) = &sync {
        ha.follow(sync.synced.clone());
    }
    let peers = sync.as_ref().map(|sync| sync.peers.clone());
    tracing::info!(socket = %admin.socket.display(), listen = ?admin.listen, "ready");

    let router = api::router(state.clone(), ha.clone(), peers, routes.views());
    let outcome = tokio::select! {
        served = api::serve(listeners, router) => served.context("admin API"),
        () = ha.failed() => Err(anyhow!("the thread that keeps the addresses has ended")),
        () = routes.failed() => Err(anyhow!("the thread that announces VIPs has ended")),
        _ = interrupt.recv() => {
            tracing::info!("interrupted");
            Ok(())
        }
        _ = terminate.recv() => {
            tracing::info!("terminated");
            Ok(())
        }
    };
    // Others take over while the data path still serves.
    tokio::join!(routes.end(), ha.end());
    drop(following);
    if outcome.is_err() {
        // As where it had died: clients need not notice.
        state.let_go().await;
    }
    // The last of them: the owner ends and detaches the data path.
    drop(state);
    owner.await.context("the owner of the state")?;
    outcome
}

/// The proxy needs a descriptor a connection, on both sides.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("the limit of open files stays as it is: {error}");
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
        },
        pin: agent.pin.directory().map(|directory| Pin {
            directory: directory.to_owned(),
            source_addresses: agent.full_nat.addresses.clone(),
            peer_source_addresses: agent.full_nat.peer_addresses.clone(),
        }),
        tell_peers: config.ha.sync.is_some(),
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
