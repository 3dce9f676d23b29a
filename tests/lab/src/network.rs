//! A lab as its users see it.

use std::{fs, os::fd::BorrowedFd, path::PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{
    Namespace, Pair, Plan,
    address::{CLIENT_SUBNET, LAST_HOST, LB, ROUTER},
    name::{Name, remove_leftovers},
    pass::{Attached, Pass},
    plan::Wiring,
    wiring,
};

/// A network of namespaces. All of it is removed when this is dropped.
pub struct Lab {
    // Dropping these detaches the programs.
    passing: Vec<Attached>,
    client: Namespace,
    balancers: Vec<Balancer>,
    lan: Option<Namespace>,
    router: Option<Namespace>,
    lb_devices: Vec<String>,
    backends: Vec<Backend>,
    vips: Vec<Pair>,
    // Last: its namespaces are closed by then.
    name: Name,
}

/// A balancer's place in the lab.
#[derive(Clone, Debug)]
pub struct Balancer {
    /// `lb`, `lb2`: also the name of its port on a segment.
    pub name: String,
    /// Where it runs.
    pub namespace: Namespace,
    /// Its own addresses in the client's subnet; behind a router, in its only one.
    pub addresses: Pair,
    /// Its own addresses in the first backend's subnet.
    pub backend_addresses: Pair,
}

/// A backend's place in the lab.
#[derive(Clone, Debug)]
pub struct Backend {
    /// `be1`, `be2` and so on.
    pub name: String,
    /// Where its servers run. Its NIC is `eth0`.
    pub namespace: Namespace,
    /// Its own addresses.
    pub addresses: Pair,
    /// The balancer's addresses in its subnet.
    pub gateway: Pair,
    /// The VIPs that it has on lo.
    pub vips: Vec<Pair>,
    /// Where its servers have their files.
    pub(crate) directory: PathBuf,
}

impl Lab {
    /// A lab that no other process or test meddles with. Leftovers of killed ones are removed.
    ///
    /// # Errors
    /// The process is not root, `ip` or `ethtool` is missing, or the kernel lacks something.
    pub fn new(plan: &Plan) -> Result<Self> {
        remove_leftovers()?;
        Self::build(plan, Name::unique)
    }

    /// The lab called `id`. What an earlier one of that name left is removed, so the caller sees
    /// to it that there is no other; and `id` is no number, which would be a process's.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn named(id: &str, plan: &Plan) -> Result<Self> {
        Self::build(plan, || Name::new(id))
    }

    fn build(plan: &Plan, name: impl FnOnce() -> Result<Name>) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "a lab is made of network namespaces, which needs root"
        );
        plan.validate()?;
        let name = name()?;
        let create = |role: &str| Namespace::create(&name.namespace(role));
        let vips: Vec<_> = (1..=plan.vips).map(Pair::vip).collect();
        let backends = (1..=plan.backends)
            .map(|number| {
                let (subnet, host) = match plan.wiring {
                    Wiring::Routed => (number, LB + 1),
                    _ => (1, LB + number),
                };
                let role = format!("be{number}");
                let directory = name.directory().join(&role);
                fs::create_dir(&directory)
                    .with_context(|| format!("cannot make {}", directory.display()))?;
                Ok(Backend {
                    namespace: create(&role)?,
                    name: role,
                    addresses: Pair::new(subnet, host),
                    gateway: Pair::new(subnet, LB),
                    vips: if plan.backends_hold_vips {
                        vips.clone()
                    } else {
                        Vec::new()
                    },
                    directory,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        // A pair shares the address that a single balancer has.
        let hosts: &[_] = match plan.wiring {
            wiring if wiring.is_pair() => &[("lb", LAST_HOST - 1), ("lb2", LAST_HOST)],
            Wiring::Anycast => &[
                ("lb", LAST_HOST - 2),
                ("lb2", LAST_HOST - 1),
                ("lb3", LAST_HOST),
            ],
            _ => &[("lb", LB)],
        };
        // The client is on the router's other side.
        let subnet = match plan.wiring {
            Wiring::Anycast => 1,
            _ => CLIENT_SUBNET,
        };
        let balancer = |(name, host): &(&str, u8)| {
            anyhow::Ok(Balancer {
                name: (*name).to_owned(),
                namespace: create(name)?,
                addresses: Pair::new(subnet, *host),
                backend_addresses: Pair::new(1, *host),
            })
        };
        let lan = match plan.wiring {
            Wiring::Routed => None,
            _ => Some(create("lan")?),
        };
        let router = match plan.wiring {
            Wiring::Anycast => Some(create("router")?),
            _ => None,
        };
        let mut lab = Self {
            passing: Vec::new(),
            client: create("client")?,
            balancers: hosts.iter().map(balancer).collect::<Result<_>>()?,
            lan,
            router,
            lb_devices: Vec::new(),
            backends,
            vips,
            name,
        };
        let wired = match &lab.lan {
            None => wiring::routed(&lab)?,
            Some(lan) => wiring::segment(&lab, lan, plan.wiring)?,
        };
        (lab.lb_devices, lab.passing) = (wired.lb_devices, wired.passing);
        Ok(lab)
    }

    /// Where load comes from. Its NIC is `eth0`, and it reaches the VIPs by way of the balancer.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The client's addresses.
    pub fn client_addresses(&self) -> Pair {
        Pair::new(CLIENT_SUBNET, LB + 1)
    }

    /// The balancer's place: it forwards, but has no route to the VIPs.
    pub fn lb(&self) -> &Namespace {
        &self.balancers[0].namespace
    }

    /// All balancers: one, the pair, or the three behind the router.
    pub fn balancers(&self) -> &[Balancer] {
        &self.balancers
    }

    /// The segment, if there is one: the bridge `bridge`, with a port named for each balancer and
    /// backend, and `client` or `router`. Where there are two, the backends' is the bridge `back`,
    /// and a balancer's port there is called as that on the first and `-back`.
    pub fn lan(&self) -> Option<&Namespace> {
        self.lan.as_ref()
    }

    /// The router, if there is one; its NICs are `client` and `lan`.
    pub fn router(&self) -> Option<&Namespace> {
        self.router.as_ref()
    }

    /// The router's addresses on the segment, if there is one.
    pub fn router_addresses(&self) -> Pair {
        Pair::new(1, ROUTER)
    }

    /// The balancer's NICs: `client`, `be1`, `be2` and so on if routed; `lan` on a segment, and
    /// `back` where there are two.
    pub fn lb_devices(&self) -> &[String] {
        &self.lb_devices
    }

    /// The balancer's addresses in the client's subnet; those that a pair shares; the router's.
    pub fn lb_addresses(&self) -> Pair {
        Pair::new(CLIENT_SUBNET, LB)
    }

    /// The backends, `be1` first.
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// The VIPs.
    pub fn vips(&self) -> &[Pair] {
        &self.vips
    }

    /// Has a native XDP program on the NIC of the client or of a backend, in the place of the
    /// one that only passes: veth delivers what XDP sends only to a device that has one. `host`
    /// is theirs, or on a segment, the namespace of the bridge.
    ///
    /// # Errors
    /// There is no such NIC, or the program is not for it.
    pub fn replace_program(&self, host: &Namespace, program: BorrowedFd<'_>) -> Result<()> {
        let mut passing = self.passing.iter();
        let found = passing.find(|attached| attached.is_in(host));
        let attached = found.with_context(|| format!("no program in {}", host.name()))?;
        attached.replace(program)
    }

    /// Has native XDP programs that only pass on the balancer's NICs, as Weir has its own there:
    /// veth copies what it gives to one, as a NIC does all that arrives.
    ///
    /// # Errors
    /// They have programs already.
    pub fn pass_at_lb(&mut self) -> Result<()> {
        let pass = Pass::load()?;
        for device in &self.lb_devices {
            self.passing.push(pass.attach(self.lb(), device)?);
        }
        Ok(())
    }

    /// A directory for the user's own files, removed with the lab.
    pub fn directory(&self) -> PathBuf {
        self.name.directory()
    }

    /// A directory in which balancers may pin what outlives them, removed with the lab. It is not
    /// made, and its place may have no BPF file system yet.
    pub fn pins(&self) -> PathBuf {
        self.name.pins()
    }

    /// What the namespaces' names begin with, before the role, for instance `weir-demo-`.
    pub fn namespace_prefix(&self) -> String {
        self.name.namespace("")
    }
}
