//! How many connections a client has.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::client_of;

const SHARDS: usize = 16;

/// Connections by client. As large as there are connections.
#[derive(Default)]
pub struct ClientConnections {
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

/// A connection that is counted until this is dropped.
pub struct Admitted {
    connections: Arc<ClientConnections>,
    client: IpAddr,
}

impl ClientConnections {
    /// Counts a connection; `None`: its client has `most` already.
    pub fn admit(self: &Arc<Self>, address: IpAddr, most: u32) -> Option<Admitted> {
        let client = client_of(address);
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(Admitted {
            connections: self.clone(),
            client,
        })
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let shard = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut shard = self.connections.shard(self.client);
        if let Some(count) = shard.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_apart() {
        let connections = Arc::new(ClientConnections::default());
        let admit = |text: &str| connections.admit(text.parse().unwrap(), 2);
        let first = admit("192.0.2.1");
        let second = admit("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        drop(first);
        assert!(admit("192.0.2.1").is_some());
        let six = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(six.iter().all(Option::is_some));
        assert!(admit("2001:db8::3").is_none(), "one network is one client");
        assert!(admit("2001:db8:0:1::1").is_some());
        drop((second, six));
        let left: usize = connections
            .shards
            .iter()
            .map(|s| s.lock().unwrap().len())
            .sum();
        assert_eq!(left, 0, "who has none is forgotten");
    }
}
