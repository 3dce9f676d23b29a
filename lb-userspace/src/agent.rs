//! `weir agent`: everything put together, until a signal ends it, or another agent takes over.

use std::{fs, net::UdpSocket, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    api,
    config::{Config, XdpMode},
    dataplane::{Attach, DataPlane, Interface, Limits, Options, Pin},
    ha, health,
    proxy::{Listening, Proxy, access_log, traces::Traces},
    shared,
    state::{self, Known, Parts, State},
    takeover::{self, Door, Given, Sockets, Taken},
};

/// How long an agent that ends waits for the collector to take what is left.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// Where the configuration is.
pub enum Source {
    /// In a file.
    File(PathBuf),
    /// In etcd, for what nodes share, and in a file, for what is this one's own.
    Shared(shared::Options),
}

/// Loads the configuration and the data path, and runs until SIGINT or SIGTERM, or until another
/// agent has taken over. `takeover`: from the one that runs, if one does.
///
/// # Errors
///
/// What is wrong with the configuration, the sockets or the data path.
pub async fn run(source: Source, takeover: bool) -> anyhow::Result<()> {
    let (config, opened) = match source {
        Source::File(file) => (Config::load(&file)?, None),
        Source::Shared(options) => {
            let opened = shared::open(options).await?;
            (opened.config.clone(), Some(opened))
        }
    };
    raise_descriptors();
    reopen_logs_on_hangup()?;
    let (votes, voting) = match &opened {
        Some(opened) => shared::vote(opened).await.unzip(),
        None => (None, None),
    };
    let shared = opened.map(|opened| Sharing { opened, voting });
    let Some(taken) = taken(&config, takeover).await? else {
        // Before the data path: an agent that is running keeps its own.
        let begun = Begun::new(&config)?.start(&config, votes)?;
        return begun.run(config, shared, ha::Known::default()).await;
    };
    let (begun, link) = Begun::taken_over(&config, taken);
    match begun.and_then(|begun| begun.start(&config, votes)) {
        Ok(begun) => {
            let known = link.attached().await;
            begun.run(config, shared, known).await
        }
        Err(error) => {
            link.refuse(&error).await;
            Err(error.context("the agent that runs goes on, as this one cannot take over"))
        }
    }
}

/// What an agent shares with other nodes.
struct Sharing {
    opened: shared::Opened,
    voting: Option<shared::Voting>,
}

/// What another agent has given up.
async fn taken(config: &Config, takeover: bool) -> anyhow::Result<Option<Taken>> {
    if !takeover {
        return Ok(None);
    }
    let taken = takeover::take(&config.agent).await?;
    if taken.is_none() {
        tracing::info!("no agent runs to take over from");
    }
    Ok(taken)
}

fn reopen_logs_on_hangup() -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("opening access logs anew");
            access_log::reopen();
        }
    });
    Ok(())
}

/// What an agent has before its data path.
struct Begun {
    sockets: Sockets,
    listening: Listening,
    known: Vec<Known>,
}

impl Begun {
    fn new(config: &Config) -> anyhow::Result<Self> {
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
    fn taken_over(config: &Config, taken: Taken) -> (anyhow::Result<Self>, takeover::Link) {
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
    fn start(self, config: &Config, votes: Option<shared::Votes>) -> anyhow::Result<Running> {
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

/// An agent that serves. What it does for the node beside that, and its API, are still to come.
struct Running {
    sockets: Sockets,
    state: State,
    owner: JoinHandle<()>,
    /// Ends when the last span is on its way.
    exporting: Option<JoinHandle<()>>,
    served: watch::Receiver<ha::Serving>,
    tables: Option<Arc<dyn ha::sync::Tables>>,
}

impl Running {
    /// Goes on until it ends. `known`: how it stood with the node when the agent before this one
    /// left it.
    async fn run(
        self,
        config: Config,
        sharing: Option<Sharing>,
        known: ha::Known,
    ) -> anyhow::Result<()> {
        let Self {
            mut sockets,
            state,
            owner,
            exporting,
            served,
            tables,
        } = self;
        sockets.set_own(true);
        let node = sockets.sync_node(&config, tables, known.synced);
        let node =
            node.and_then(|sync| Node::start(&config, sharing, state.clone(), sync, served, known));
        let outcome = match node {
            Ok(node) => node.run(&config, &mut sockets).await,
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            // As where it had died: clients need not notice.
            state.let_go().await;
        }
        // The last of them: the owner ends and detaches the data path, if it still has it.
        drop(state);
        owner.await.context("the owner of the state")?;
        if let Some(exporting) = exporting {
            // A collector that does not answer is not waited for.
            let _ = timeout(LAST_SPANS, exporting).await;
        }
        outcome
    }
}

impl Sockets {
    /// Whether their files are this agent's.
    fn set_own(&mut self, own: bool) {
        self.api.file.own = own;
        self.door.file.own = own;
    }

    /// Speaks with the nodes that are to know this one's flows.
    fn sync_node(
        &self,
        config: &Config,
        tables: Option<Arc<dyn ha::sync::Tables>>,
        synced: bool,
    ) -> anyhow::Result<Option<ha::sync::Node>> {
        let socket = self.sync.as_ref().map(UdpSocket::try_clone).transpose()?;
        ha::sync::start(&config.ha, tables, socket, synced)
    }
}

/// What the agent does for the node beside serving.
struct Node {
    state: State,
    following: Option<shared::Running>,
    voting: Option<shared::Voting>,
    sync: Option<ha::sync::Node>,
    ha: ha::Ha,
    routes: ha::routes::Routes,
}

/// Why it does so no more.
enum End {
    /// It is told to end.
    Told,
    /// It cannot go on.
    Failed(anyhow::Error),
    /// Another agent has the data path.
    Given(Given),
}

impl Node {
    fn start(
        config: &Config,
        sharing: Option<Sharing>,
        state: State,
        sync: Option<ha::sync::Node>,
        served: watch::Receiver<ha::Serving>,
        known: ha::Known,
    ) -> anyhow::Result<Self> {
        let (state, following, voting) = match sharing {
            None => (state, None, None),
            Some(Sharing { opened, voting }) => {
                let (handle, running) = shared::spawn(opened, state.clone(), voting.as_ref())?;
                if let Some(voting) = &voting {
                    voting.begin(known.lease);
                }
                (state.sharing(handle), Some(running), voting)
            }
        };
        // Last: whoever takes addresses can serve them.
        let synced = sync.as_ref().map(|sync| sync.synced.clone());
        let ha = ha::spawn(&config.ha, served.clone(), synced.clone(), &known.groups)?;
        let routes = ha::routes::spawn(config, served, synced, known.announced)?;
        Ok(Self {
            state,
            following,
            voting,
            sync,
            ha,
            routes,
        })
    }

    /// Serves the API until something ends it, and ends.
    async fn run(self, config: &Config, sockets: &mut Sockets) -> anyhow::Result<()> {
        let end = self.serve(config, sockets).await;
        let Self {
            state,
            following,
            voting,
            sync,
            ha,
            routes,
        } = self;
        drop(following);
        drop(state);
        let outcome = match end {
            Ok(End::Given(given)) => {
                sockets.set_own(false);
                let lease = match voting {
                    Some(voting) => voting.leave().await,
                    None => None,
                };
                let known = ha::Known {
                    lease,
                    announced: routes.leave().await,
                    groups: ha.leave().await,
                    synced: sync.as_ref().is_some_and(|sync| *sync.synced.borrow()),
                };
                if let Some(sync) = sync {
                    sync.end().await;
                }
                if let Some(process) = given.process() {
                    tell_manager(NotifyState::MainPid(process));
                }
                given.leave(known).await;
                tracing::info!("another agent has taken over; what is under way here may end");
                return Ok(());
            }
            Ok(End::Told) => Ok(()),
            Ok(End::Failed(error)) | Err(error) => Err(error),
        };
        tell_manager(NotifyState::Stopping);
        // Others take over while the data path still serves.
        tokio::join!(routes.end(), ha.end());
        if let Some(voting) = voting {
            voting.end().await;
        }
        outcome
    }

    async fn serve(&self, config: &Config, sockets: &mut Sockets) -> anyhow::Result<End> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut renew = signal(SignalKind::user_defined2())?;
        let peers = self.sync.as_ref().map(|sync| sync.peers.clone());
        let views = self.routes.views();
        let router = api::router(self.state.clone(), self.ha.clone(), peers, views);
        let mut serving = sockets.api.serve(&router)?;
        let admin = &config.agent.admin;
        tracing::info!(socket = %admin.socket.display(), listen = ?admin.listen, "ready");
        tell_manager(NotifyState::Ready);
        loop {
            let link = tokio::select! {
                failed = serving.failed() => {
                    let error = failed.err().unwrap_or_else(|| anyhow!("it has ended"));
                    return Ok(End::Failed(error.context("admin API")));
                }
                () = self.ha.failed() => {
                    let error = anyhow!("the thread that keeps the addresses has ended");
                    return Ok(End::Failed(error));
                }
                () = self.routes.failed() => {
                    let error = anyhow!("the thread that announces VIPs has ended");
                    return Ok(End::Failed(error));
                }
                _ = interrupt.recv() => {
                    tracing::info!("interrupted");
                    return Ok(End::Told);
                }
                _ = terminate.recv() => {
                    tracing::info!("terminated");
                    return Ok(End::Told);
                }
                _ = renew.recv() => {
                    match takeover::successor::start() {
                        Ok(()) => tracing::info!("another agent is started to take over"),
                        Err(error) => tracing::error!("starting another agent: {error}"),
                    }
                    continue;
                }
                link = sockets.door.accept(&config.agent) => link,
            };
            tracing::info!("another agent begins to take over");
            // What comes meanwhile waits for whoever serves then.
            serving.stop();
            match takeover::give(link, &self.state, sockets).await {
                Ok(given) => return Ok(End::Given(given)),
                Err(why) => {
                    tracing::warn!(
                        "the other agent has not taken over, and this one goes on: {why:#}"
                    );
                }
            }
            serving = sockets.api.serve(&router)?;
        }
    }
}

/// Tells systemd, or who else has started this agent, if they want to know (`sd_notify(3)`).
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!("telling the service manager: {error}");
    }
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
