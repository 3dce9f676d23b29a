//! The side of the agent that runs.

use std::{
    fs::{self, Permissions},
    io,
    net::UdpSocket,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
    pin::pin,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::unistd::geteuid;
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use tokio_seqpacket::{UnixSeqpacket, UnixSeqpacketListener};

use super::{
    VERSION,
    message::{BACKENDS, Message, Name, SOCKETS, receive, send},
    path,
};
use crate::{
    api,
    config::Agent,
    ha,
    state::{News, Offer, State},
};

/// How long another agent may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one that was offered the data path may say nothing before this agent goes on, if the
/// other has not begun to take it.
const SILENCE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the kernel could not.
const BREATHER: Duration = Duration::from_millis(100);

/// Where other agents ask to take over from this one.
pub struct Door {
    listener: UnixSeqpacketListener,
    /// Its socket's.
    pub file: api::SocketFile,
}

/// What no two agents can have, unless the one gives it to the other.
pub struct Sockets {
    /// The admin API's.
    pub api: api::Listeners,
    /// Where other agents ask.
    pub door: Door,
    /// Where other nodes tell of flows, if they do.
    pub sync: Option<UdpSocket>,
}

/// Another agent has taken the data path, and waits for the rest.
pub struct Given {
    link: UnixSeqpacket,
    news: mpsc::Sender<News>,
}

impl Door {
    /// Opens it, where nobody else does. Only the owner of the agent may use it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn open(agent: &Agent) -> anyhow::Result<Self> {
        let path = path(&agent.admin.socket);
        let open = || -> io::Result<Self> {
            // Who holds the admin socket is alone.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixSeqpacketListener::bind(&path)?;
            let file = api::SocketFile::new(&path, true);
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok(Self { listener, file })
        };
        open().with_context(|| format!("takeover socket {}", path.display()))
    }

    /// The one of another agent, whose file it still is.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn taken_over(agent: &Agent, socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            listener: socket.try_into()?,
            file: api::SocketFile::new(&path(&agent.admin.socket), false),
        })
    }

    /// The next agent that may take over from this one and wants to.
    pub async fn accept(&mut self, agent: &Agent) -> UnixSeqpacket {
        loop {
            let link = match self.listener.accept().await {
                Ok(link) => link,
                Err(error) => {
                    tracing::warn!("takeover socket: {error}");
                    sleep(BREATHER).await;
                    continue;
                }
            };
            let asked = timeout(PATIENCE, asked(&link, agent.pin.0.as_path())).await;
            match asked.unwrap_or_else(|_| bail!("it does not say what it wants")) {
                Ok(()) => return link,
                Err(why) => {
                    tracing::warn!("another agent may not take over: {why:#}");
                    // It may be gone.
                    let _ = send(&link, &Message::Refused(format!("{why:#}")), &[]).await;
                }
            }
        }
    }
}

async fn asked(link: &UnixSeqpacket, own: &Path) -> anyhow::Result<()> {
    let user = link.peer_cred()?.uid();
    let own_user = geteuid().as_raw();
    if user != own_user && user != 0 {
        bail!("it runs as user {user}, and this one as user {own_user}");
    }
    let (version, pin) = match receive(link).await? {
        Some((Message::Ask { version, pin }, _)) => (version, pin),
        Some((other, _)) => bail!("it says {other:?}"),
        None => bail!("it has ended"),
    };
    if version != VERSION {
        bail!("it speaks version {version} of the hand-over, and this one version {VERSION}");
    }
    if pin != own {
        bail!(
            "its `agent.pin` is {pin:?}, and that of the agent that runs is {own:?}: it must be \
             the same"
        );
    }
    Ok(())
}

/// Offers everything to another agent, until it has the data path.
///
/// # Errors
///
/// Why it has not: this agent has gone on as before.
pub async fn give(link: UnixSeqpacket, state: &State, own: &Sockets) -> anyhow::Result<Given> {
    let offer = match state.offer().await {
        Ok(offer) => offer,
        Err(error) => {
            // It may be gone.
            let _ = send(&link, &Message::Refused(format!("{error:#}")), &[]).await;
            return Err(error);
        }
    };
    let news = offer.news.clone();
    {
        let mut given = pin!(offered(&link, offer, own));
        let mut said = false;
        loop {
            if let Ok(answered) = timeout(SILENCE, &mut given).await {
                answered?;
                break;
            }
            let process = process(&link).unwrap_or_default();
            if is_back(&news).await {
                bail!(
                    "it is given up, as it hangs: process {process} says nothing for {SILENCE:?}"
                );
            }
            if !said {
                // It may be about to attach its program: nobody can know.
                tracing::warn!(
                    process,
                    "the other agent has begun to take the data path, and has said nothing for \
                     {SILENCE:?}: if it hangs, kill it, and this one goes on"
                );
                said = true;
            }
        }
    }
    Ok(Given { link, news })
}

/// Whether the data path is this agent's alone again, though another was offered it.
async fn is_back(news: &mpsc::Sender<News>) -> bool {
    let (whether, back) = oneshot::channel();
    // The owner hears of it for as long as the data path is offered.
    news.send(News::Silent(whether)).await.is_ok() && back.await.unwrap_or(false)
}

/// Says everything, and waits until the other has taken the data path.
async fn offered(link: &UnixSeqpacket, offer: Offer, own: &Sockets) -> anyhow::Result<()> {
    let mut sockets = vec![(Name::Door, own.door.listener.as_fd().try_clone_to_owned()?)];
    sockets.push((Name::Admin, own.api.unix()?));
    if let Some((address, socket)) = own.api.tcp()? {
        sockets.push((Name::AdminTcp(address), socket));
    }
    if let Some(socket) = &own.sync {
        let name = Name::Sync(socket.local_addr()?);
        sockets.push((name, socket.try_clone()?.into()));
    }
    for (address, listeners) in offer.listening {
        let named = |listener: std::net::TcpListener| (Name::Service(address), listener.into());
        sockets.extend(listeners.into_iter().map(named));
    }
    while !sockets.is_empty() {
        let some = sockets.drain(..sockets.len().min(SOCKETS));
        let (names, sockets): (_, Vec<_>) = some.unzip();
        send(link, &Message::Sockets(names), &sockets).await?;
    }
    for known in offer.known.chunks(BACKENDS) {
        send(link, &Message::Known(known.to_vec()), &[]).await?;
    }
    send(link, &Message::Offered, &[]).await?;
    match receive(link).await? {
        Some((Message::Attached, _)) => Ok(()),
        Some((Message::Refused(why), _)) => bail!("{why}"),
        Some((other, _)) => bail!("it says {other:?}"),
        None => bail!("it has ended"),
    }
}

/// The process at the other end, as far as the kernel tells.
fn process(link: &UnixSeqpacket) -> Option<u32> {
    u32::try_from(link.peer_cred().ok()?.pid()?).ok()
}

impl Given {
    /// The other agent's process id, as far as the kernel tells.
    pub fn process(&self) -> Option<u32> {
        process(&self.link)
    }

    /// Gives the rest, which this agent has left; returns when it accepts nothing any more.
    pub async fn leave(self, known: ha::Known) {
        let mut known = known;
        let told = async {
            for (name, group) in std::mem::take(&mut known.groups) {
                send(&self.link, &Message::Group(name, group), &[]).await?;
            }
            send(&self.link, &Message::Yours(known), &[]).await
        };
        if let Err(error) = told.await {
            tracing::error!("the other agent has the data path, and is gone: {error:#}");
        }
        let (done, closed) = oneshot::channel();
        if self.news.send(News::Taken(done)).await.is_ok() {
            // The owner has ended if it cannot say so.
            let _ = closed.await;
        }
    }
}
