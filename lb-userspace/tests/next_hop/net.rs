//! Two network namespaces, and a resolver in one of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_userspace::next_hop::{self, Asker, News, NextHop, Resolution, Wanted, Why};
use nix::sched::{CloneFlags, setns};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Two namespaces joined by a wire: `own` holds 192.0.2.1 and 2001:db8::1, `peer` those with 2.
/// The interface is called `wire` at both ends.
pub(super) struct Net {
    own: String,
    peer: String,
}

impl Net {
    pub(super) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and must be run as root"
        );
        let name = format!(
            "next-hop-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let net = Self {
            own: format!("{name}-own"),
            peer: format!("{name}-peer"),
        };
        ip(&format!("netns add {}", net.own));
        ip(&format!("netns add {}", net.peer));
        ip(&format!(
            "link add wire netns {} address 02:00:00:00:00:01 type veth \
             peer name wire netns {} address 02:00:00:00:00:02",
            net.own, net.peer
        ));
        for (side, host) in [(&net.own, 1), (&net.peer, 2)] {
            // Generated link-local addresses would come late and disturb the epoch; without any,
            // the kernel solicits no neighbour.
            ip(&format!("-n {side} link set wire addrgenmode none"));
            ip(&format!("-n {side} link set lo up"));
            ip(&format!("-n {side} link set wire up"));
            ip(&format!("-n {side} address add 192.0.2.{host}/24 dev wire"));
            for address in [format!("2001:db8::{host}"), format!("fe80::{host}")] {
                ip(&format!(
                    "-n {side} address add {address}/64 dev wire nodad"
                ));
            }
        }
        // The kernel marks a link as running a while after it has its carrier.
        let start = Instant::now();
        while !net.own("link show dev wire").contains("state UP") {
            assert!(start.elapsed() < PATIENCE, "the link does not come up");
            thread::sleep(Duration::from_millis(10));
        }
        net
    }

    pub(super) fn own(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.own))
    }

    pub(super) fn peer(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.peer))
    }

    /// Sets a kernel parameter below `net` in the own namespace.
    pub(super) fn set(&self, parameter: &str, value: u32) {
        ip(&format!(
            "netns exec {} sysctl -qw net.{parameter}={value}",
            self.own
        ));
    }

    pub(super) fn ifindex(&self) -> u32 {
        let link = self.own("-o link show dev wire");
        link.split(':').next().unwrap().parse().unwrap()
    }

    /// Waits until `ip neighbour` says a word of an address.
    pub(super) async fn neighbour_is(&self, address: &str, word: &str) {
        let show = || self.own(&format!("neighbour show {address}"));
        let found = async {
            while !show().contains(word) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(PATIENCE, found).await;
        assert!(found.is_ok(), "{address} is not {word}: {}", show());
    }

    /// Runs a test in the own namespace, with a resolver for `targets`.
    pub(super) fn run(&self, targets: &[&str], test: impl AsyncFnOnce(&mut Probe) + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.own)).unwrap();
        let targets = addresses(targets);
        thread::scope(|scope| {
            let test = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let (wanted, receiver) = mpsc::unbounded_channel();
                    let resolver = next_hop::spawn(receiver).unwrap();
                    let mut probe = Probe {
                        wanted,
                        targets: BTreeSet::new(),
                        asker: resolver.asker,
                        news: resolver.news,
                        table: Table::default(),
                    };
                    probe.want(targets);
                    test(&mut probe).await;
                });
            });
            if let Err(panic) = test.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for side in [&self.own, &self.peer] {
            let deleted = Command::new("ip").args(["netns", "delete", side]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("network namespace {side} is left behind");
            }
        }
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("cannot run ip");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn addresses(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|a| a.parse().unwrap()).collect()
}

/// All that the resolver has told.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) next_hops: BTreeMap<IpAddr, Resolution>,
    pub(super) epoch: u32,
}

impl Table {
    fn take_in(&mut self, news: News) {
        self.epoch = news.epoch;
        for (address, resolution) in news.told {
            let before = match resolution {
                Some(new) => self.next_hops.insert(address, new),
                None => self.next_hops.remove(&address),
            };
            let now = self.next_hops.get(&address);
            assert_ne!(before.as_ref(), now, "{address}: that is no news");
        }
    }
}

pub(super) struct Probe {
    pub(super) wanted: mpsc::UnboundedSender<Wanted>,
    targets: BTreeSet<IpAddr>,
    pub(super) asker: Asker,
    news: mpsc::UnboundedReceiver<News>,
    pub(super) table: Table,
}

impl Probe {
    /// Wants these targets and no others.
    pub(super) fn want(&mut self, targets: BTreeSet<IpAddr>) {
        let changed = self.targets.symmetric_difference(&targets);
        let changed = changed.map(|address| (*address, targets.contains(address)));
        self.wanted.send(changed.collect()).unwrap();
        self.targets = targets;
    }

    /// Waits for a table that has what is wanted.
    pub(super) async fn wait_for(&mut self, mut wanted: impl FnMut(&Table) -> bool) -> Table {
        let found = async {
            while !wanted(&self.table) {
                let news = self.news.recv().await;
                self.table.take_in(news.expect("the resolver has ended"));
            }
        };
        if timeout(PATIENCE, found).await.is_err() {
            panic!("still {:?}", self.table);
        }
        self.table.clone()
    }

    pub(super) async fn wait_until(
        &mut self,
        target: &str,
        mut wanted: impl FnMut(&Resolution) -> bool,
    ) {
        let target: IpAddr = target.parse().unwrap();
        self.wait_for(|table| table.next_hops.get(&target).is_some_and(&mut wanted))
            .await;
    }

    pub(super) async fn resolved(&mut self, target: &str) -> NextHop {
        let mut found = None;
        self.wait_until(target, |resolution| {
            if let Resolution::Resolved(next_hop) = resolution {
                found = Some(*next_hop);
            }
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    pub(super) async fn unresolved(&mut self, target: &str) -> Why {
        let mut found = None;
        self.wait_until(target, |resolution| {
            if let Resolution::Unresolved(why) = resolution {
                found = Some(why.clone());
            }
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Waits until nothing new has come for a while.
    pub(super) async fn quiet(&mut self) -> Table {
        while let Ok(news) = timeout(Duration::from_secs(1), self.news.recv()).await {
            self.table.take_in(news.expect("the resolver has ended"));
        }
        self.table.clone()
    }
}
