//! The side of the new agent.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
};

use anyhow::{Context as _, bail};
use tokio_seqpacket::UnixSeqpacket;

use super::{
    VERSION,
    give::Door,
    message::{Message, Name, receive, send},
    path,
};
use crate::{config::Agent, ha, proxy::Listening, state::Known};

/// What the agent that runs has given: it serves on, and changes nothing, until it is told how it
/// went.
pub struct Taken {
    /// How to tell it.
    pub link: Link,
    /// The admin API's Unix socket.
    pub admin: OwnedFd,
    /// Its TCP socket, if there is one.
    pub admin_tcp: Option<(SocketAddr, OwnedFd)>,
    /// Where the next agent asks.
    pub door: Door,
    /// Where other nodes tell of flows, if they do.
    pub sync: Option<(SocketAddr, UdpSocket)>,
    /// The proxy's sockets.
    pub listening: Listening,
    /// What is known of backends.
    pub known: Vec<Known>,
}

/// Asks the agent that runs with this admin socket; none where there is none.
///
/// # Errors
///
/// It does not give anything up.
pub async fn take(agent: &Agent) -> anyhow::Result<Option<Taken>> {
    let path = path(&agent.admin.socket);
    let link = match UnixSeqpacket::connect(&path).await {
        Ok(link) => link,
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("takeover socket {}", path.display()));
        }
    };
    let taken = taken(link, agent).await;
    taken
        .map(Some)
        .context("taking over from the agent that runs")
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

async fn taken(link: UnixSeqpacket, agent: &Agent) -> anyhow::Result<Taken> {
    let ask = Message::Ask {
        version: VERSION,
        pin: agent.pin.0.clone(),
    };
    send(&link, &ask, &[]).await?;
    let (mut admin, mut admin_tcp, mut door, mut sync) = (None, None, None, None);
    let mut listening = Listening::new();
    let mut known = Vec::new();
    loop {
        match next(&link).await? {
            (Message::Sockets(names), sockets) if names.len() == sockets.len() => {
                for (name, socket) in names.into_iter().zip(sockets) {
                    match name {
                        Name::Admin => admin = Some(socket),
                        Name::AdminTcp(address) => admin_tcp = Some((address, socket)),
                        Name::Door => door = Some(Door::taken_over(agent, socket)?),
                        Name::Sync(address) => sync = Some((address, socket.into())),
                        Name::Service(address) => {
                            listening.entry(address).or_default().push(socket.into());
                        }
                    }
                }
            }
            (Message::Known(some), _) => known.extend(some),
            (Message::Offered, _) => break,
            (other, _) => bail!("it says {other:?}"),
        }
    }
    Ok(Taken {
        link: Link(link),
        admin: admin.context("it has no admin socket")?,
        admin_tcp,
        door: door.context("it has no takeover socket")?,
        sync,
        listening,
        known,
    })
}

async fn next(link: &UnixSeqpacket) -> anyhow::Result<(Message, Vec<OwnedFd>)> {
    match receive(link).await? {
        Some((Message::Refused(why), _)) => bail!("it refuses: {why}"),
        Some(message) => Ok(message),
        None => bail!("it has ended"),
    }
}

/// The way to tell the other agent how it goes. It goes on as before where this is dropped.
pub struct Link(UnixSeqpacket);

impl Link {
    /// The data path is this agent's, which accepts connections: the other is to end. Returns what
    /// this one is to go on with.
    pub async fn attached(self) -> ha::Known {
        let rest = async {
            send(&self.0, &Message::Attached, &[]).await?;
            let mut groups = BTreeMap::new();
            loop {
                match next(&self.0).await?.0 {
                    Message::Group(name, group) => drop(groups.insert(name, group)),
                    Message::Yours(known) => return anyhow::Ok(ha::Known { groups, ..known }),
                    other => bail!("it says {other:?}"),
                }
            }
        };
        rest.await.unwrap_or_else(|error| {
            tracing::warn!(
                "the agent before this one has left addresses without a word: {error:#}"
            );
            ha::Known::default()
        })
    }

    /// Nothing comes of it.
    pub async fn refuse(self, why: &anyhow::Error) {
        // It sees that this agent ends, too.
        let _ = send(&self.0, &Message::Refused(format!("{why:#}")), &[]).await;
    }
}
