//! The netlink sockets: one for questions, one for notifications, so that a flood of the latter
//! costs no answers.

use std::{future::Future, io, net::IpAddr, time::Duration};

use futures::{StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use rtnetlink::{
    Error as NetlinkError, Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourFlags, NeighbourState},
    },
    sys::SocketAddr,
};
use thiserror::Error;
use tokio::{task::JoinSet, time::timeout};

use super::{
    Why,
    links::Links,
    neighbours::{Key, Neighbours},
    routes::{self, Route},
};

/// The kernel answers at once; this only guards against an answer that was lost.
const PATIENCE: Duration = Duration::from_secs(10);

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    // Deleting an address removes IPv4 routes without a word.
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Why the sockets are of no more use.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("the netlink socket was closed")]
    Closed,
    #[error("the kernel has not answered in {PATIENCE:?}")]
    Silent,
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What the kernel notifies of.
pub(super) enum Event {
    Message(RouteNetlinkMessage),
    /// Notifications were lost.
    Overrun,
}

/// A connection to the kernel, in the network namespace of the thread that made it.
pub(super) struct Kernel {
    handle: Handle,
    events: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    /// Dropping it closes the sockets.
    _connections: JoinSet<()>,
}

impl Kernel {
    pub(super) fn connect() -> io::Result<Self> {
        let (questions, handle, _) = new_connection()?;
        let (notifications, _, events) = new_multicast_connection(&GROUPS)?;
        let mut connections = JoinSet::new();
        connections.spawn(questions);
        connections.spawn(notifications);
        Ok(Self {
            handle,
            events,
            _connections: connections,
        })
    }

    /// Waits for a notification. May be cancelled.
    pub(super) async fn event(&mut self) -> Result<Event, Error> {
        loop {
            let (message, _) = self.events.next().await.ok_or(Error::Closed)?;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => return Ok(Event::Message(message)),
                NetlinkPayload::Overrun(_) => return Ok(Event::Overrun),
                _ => {}
            }
        }
    }

    pub(super) async fn links(&self) -> Result<Links, Error> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>();
        Ok(patiently(links).await??.into_iter().collect())
    }

    pub(super) async fn neighbours(&self) -> Result<Neighbours, Error> {
        let neighbours = self.handle.neighbours().get().execute();
        let neighbours = patiently(neighbours.try_collect::<Vec<_>>()).await??;
        Ok(neighbours.into_iter().collect())
    }

    /// Asks for the way to an address, as `ip route get` does.
    pub(super) async fn route(&self, address: IpAddr) -> Result<Route, Error> {
        let mut answers = Box::pin(self.handle.route().get(routes::question(address)).execute());
        match patiently(answers.next()).await {
            Ok(Some(Ok(message))) => Ok(routes::answer(&message)),
            Ok(Some(Err(NetlinkError::NetlinkError(error)))) => {
                Ok(Err(routes::refusal(&error.to_io())))
            }
            Ok(Some(Err(error))) => Err(error.into()),
            Ok(None) => Err(Error::Closed),
            // An answer that the netlink crate cannot read must not stop the other targets.
            Err(error) => Ok(Err(Why::NoRoute(error.to_string()))),
        }
    }

    /// Does to a neighbour entry what a packet to it would: has it resolved or, if stale, probed.
    /// The inner error is the kernel's refusal.
    pub(super) async fn kick(&self, key: Key) -> Result<io::Result<()>, Error> {
        let request = self
            .handle
            .neighbours()
            .add(key.ifindex, key.address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            // Otherwise it must not exist yet. With `Use`, nothing in it is replaced.
            .replace();
        match patiently(request.execute()).await? {
            Ok(()) => Ok(Ok(())),
            Err(NetlinkError::NetlinkError(error)) => Ok(Err(error.to_io())),
            Err(error) => Err(error.into()),
        }
    }
}

async fn patiently<T>(answer: impl Future<Output = T>) -> Result<T, Error> {
    timeout(PATIENCE, answer).await.map_err(|_| Error::Silent)
}
