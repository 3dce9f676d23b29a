//! What the agents tell each other: JSON, a message a packet, with the sockets that it names.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio_seqpacket::{
    UnixSeqpacket,
    ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage},
};

use crate::{ha, state};

/// Sockets of a message; the kernel takes 253.
pub(super) const SOCKETS: usize = 128;
/// Backends of a message.
pub(super) const BACKENDS: usize = 256;
/// Bytes of a message: less than a socket's buffer, and more than any is.
const BYTES: usize = 192 << 10;
/// Bytes of what says which sockets are with it.
const RIGHTS: usize = 4 * SOCKETS + 64;

/// A message.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// The new agent wants to take over.
    Ask {
        /// See [`super::VERSION`].
        version: u32,
        /// Its `agent.pin`.
        pin: PathBuf,
    },
    /// It may not, for this reason.
    Refused(String),
    /// Sockets, in the order of these names.
    Sockets(Vec<Name>),
    /// What is known of backends.
    Known(Vec<state::Known>),
    /// That was all, and the data path may be taken.
    Offered,
    /// It was taken.
    Attached,
    /// A group of `ha`.
    Group(String, ha::KnownGroup),
    /// The rest is the new agent's, too.
    Yours(ha::Known),
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Name {
    /// The admin API's Unix socket.
    Admin,
    /// Its TCP socket.
    AdminTcp(SocketAddr),
    /// Where agents ask to take over.
    Door,
    /// Where other nodes tell of flows.
    Sync(SocketAddr),
    /// One of those of a VIP and port.
    Service(SocketAddr),
}

/// Sends a message.
///
/// # Errors
///
/// The other is gone; or the kernel's.
pub(super) async fn send(
    link: &UnixSeqpacket,
    message: &Message,
    sockets: &[OwnedFd],
) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    ensure!(bytes.len() <= BYTES, "a message of {} bytes", bytes.len());
    let mut space = [0; RIGHTS];
    let mut rights = AncillaryMessageWriter::new(&mut space);
    if !sockets.is_empty() {
        rights.add_fds(sockets.iter().map(|socket| socket.as_fd()))?;
    }
    link.send_with_ancillary(&bytes, &mut rights).await?;
    Ok(())
}

/// The next message and its sockets; none where the other is gone.
///
/// # Errors
///
/// It is none; or the kernel's.
pub(super) async fn receive(
    link: &UnixSeqpacket,
) -> anyhow::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; BYTES];
    let mut space = [0; RIGHTS];
    let received = link.recv_with_ancillary(&mut bytes, &mut space).await;
    let (info, rights) = match received {
        // One that died with something unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        received => received?,
    };
    if info.truncated() || info.ancillary_truncated() {
        bail!("a message is larger than any should be");
    }
    let mut sockets = Vec::new();
    for message in rights.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(passed) = message {
            sockets.extend(passed);
        }
    }
    match info.bytes_read() {
        0 => Ok(None),
        read => {
            let message = serde_json::from_slice(&bytes[..read]);
            Ok(Some((message.context("no message")?, sockets)))
        }
    }
}
