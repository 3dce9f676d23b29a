//! The site: the example's files with the lab's addresses, and what is in each tier.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Backend, Lab, Plan, Wiring, retry,
    servers::{self, Daemon},
};
use lb_userspace::{
    config::{Config, from_toml},
    state::BackendView,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::{agent::Agent, agent::PATIENCE, certificate, https::Https};

/// What clients call the site.
pub(crate) const NAME: &str = "www.example.org";

/// How long a drain may take before what is left is ended: longer than the connections between
/// the tiers last.
const DRAIN: Duration = Duration::from_secs(5);

/// Where the example's hosts are: a tier's first host, and how many it has with those to come.
const HOSTS: [(u8, u8); 3] = [(21, 8), (31, 8), (41, 4)];

/// The site, as it is served.
pub(crate) struct Scene {
    // In the order in which they end.
    /// Its tiers.
    pub(crate) tiers: Vec<Tier>,
    certificate: PathBuf,
    pub(crate) lab: Lab,
}

/// A tier: Weir, and the servers behind it.
pub(crate) struct Tier {
    agent: Agent,
    servers: Vec<Server>,
    /// Pool, name and address of those to come, the first of which is added and the other put in
    /// another's place.
    spares: Vec<(String, String, SocketAddr)>,
    killed: Option<String>,
}

struct Server {
    pool: String,
    name: String,
    host: Backend,
    daemon: Daemon,
}

impl Scene {
    pub(crate) fn new() -> Result<Scene> {
        let lab = Lab::new(&Plan {
            wiring: Wiring::Anycast,
            backends: HOSTS.iter().map(|(_, count)| count).sum(),
            vips: 3,
            backends_hold_vips: false,
        })?;
        wire(&lab)?;
        let (certificate, _) = certificate::self_signed(&lab.directory(), "www", NAME)?;
        // The last tier first: each asks the next one.
        let mut tiers = Vec::new();
        for place in [Tier::DB, Tier::APP, Tier::WEB] {
            tiers.push(Tier::start(&lab, place)?);
        }
        tiers.reverse();
        Ok(Scene {
            tiers,
            certificate,
            lab,
        })
    }

    /// What makes connections to the site.
    pub(crate) fn https(&self, alpn: &[&str]) -> Result<Https> {
        let target = SocketAddr::new(self.lab.vips()[0].v4.into(), 443);
        Https::new(target, NAME, &[&self.certificate], alpn)
    }

    /// The log of what clients asked.
    pub(crate) fn access_log(&self) -> PathBuf {
        self.lab.directory().join("access.log")
    }

    /// What the web servers complained of.
    pub(crate) fn web_errors(&self) -> Vec<String> {
        let logs = self.tiers[Tier::WEB].servers.iter();
        let lines = logs.map(|server| server.daemon.log());
        lines
            .flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// Who was killed in a tier.
    pub(crate) fn killed(&self, tier: usize) -> Option<&str> {
        self.tiers[tier].killed.as_deref()
    }

    /// The orders that are in the databases, the killed one's too.
    pub(crate) fn orders(&mut self) -> Result<Vec<String>> {
        let mut orders = Vec::new();
        for server in &mut self.tiers[Tier::DB].servers {
            // What had a connection to the killed one may take its time.
            retry(PATIENCE, || server.daemon.start())?;
            let written = sql(&server.host, "SELECT id FROM orders")?;
            orders.extend(written.lines().map(str::to_owned));
        }
        Ok(orders)
    }
}

impl Tier {
    pub(crate) const WEB: usize = 0;
    pub(crate) const APP: usize = 1;
    pub(crate) const DB: usize = 2;

    fn start(lab: &Lab, place: usize) -> Result<Tier> {
        let file = ["edge.toml", "app.toml", "db.toml"][place];
        let config: Config = from_toml(example(lab, file)?.as_bytes())?;
        let mut servers = Vec::new();
        for (pool, settings) in &config.pools {
            for (name, backend) in &settings.backends {
                servers.push(Server::start(lab, place, pool, name, backend.address)?);
            }
        }
        let spare = match place {
            Tier::WEB => [("api", "api3", 27), ("web", "web3", 28)],
            Tier::APP => [("api", "app7", 37), ("web", "app8", 38)],
            _ => [("db", "db3", 43), ("db", "db4", 44)],
        };
        let mut spares = Vec::new();
        for (pool, name, number) in spare {
            let members = &config.pools[pool].backends;
            let port = members
                .values()
                .next()
                .context("a pool has servers")?
                .address
                .port();
            let address = SocketAddr::new(host(lab, number).addresses.v4.into(), port);
            // It is there, and nobody knows of it yet.
            servers.push(Server::start(lab, place, pool, name, address)?);
            spares.push((pool.to_owned(), name.to_owned(), address));
        }
        let agent = Agent::start_at(
            lab,
            &lab.balancers()[place],
            &serde_json::to_value(&config)?,
        )?;
        for (pool, settings) in &config.pools {
            let names: Vec<_> = settings.backends.keys().map(String::as_str).collect();
            agent.wait_for(pool, &names)?;
        }
        Ok(Tier {
            agent,
            servers,
            spares,
            killed: None,
        })
    }

    /// Adds a spare server; which pool it is in.
    pub(crate) fn add(&mut self, spare: usize) -> Result<()> {
        let (pool, name, address) = &self.spares[spare];
        let path = format!("/v1/pools/{pool}/backends/{name}");
        self.agent
            .change("PUT", &path, &json!({ "address": address }))?;
        self.wait(pool, name, "is not in use", |view| view.in_use)
    }

    /// Drains a server until it has nothing left, stops it, starts it again and takes it back.
    pub(crate) fn drain_and_return(&mut self) -> Result<()> {
        let (pool, name) = self.last_of_the_last_pool();
        self.empty(&pool, &name)?;
        let server = self.servers.iter_mut().find(|server| server.name == name);
        let server = server.context("it is there")?;
        server.daemon.stop()?;
        server.daemon.start()?;
        let path = format!("/v1/pools/{pool}/backends/{name}/drain");
        self.agent.change("DELETE", &path, &Value::Null)?;
        self.wait(&pool, &name, "is not back", |view| view.in_use)
    }

    /// Puts a spare server in the place of the first of its pool.
    pub(crate) fn replace(&mut self, spare: usize) -> Result<()> {
        self.add(spare)?;
        let pool = self.spares[spare].0.clone();
        let name = self.first_of(&pool)?;
        self.empty(&pool, &name)?;
        let path = format!("/v1/pools/{pool}/backends/{name}");
        self.agent.change("DELETE", &path, &Value::Null)?;
        let server = self.servers.iter_mut().find(|server| server.name == name);
        server.context("it is there")?.daemon.stop()
    }

    /// Kills a server of the pool that has one more, and waits until it is out.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let (pool, added, _) = self.spares[0].clone();
        // In the databases' only pool, the first has gone.
        let of_pool = |server: &&mut Server| server.pool == pool && server.name != added;
        let server = self.servers.iter_mut().filter(of_pool).nth(1);
        let server = server.context("it is there")?;
        let name = server.name.clone();
        server.daemon.kill()?;
        self.killed = Some(name.clone());
        self.wait(&pool, &name, "is in use", |view| !view.in_use)
    }

    /// Drains a server, and waits until it has nothing left.
    fn empty(&self, pool: &str, name: &str) -> Result<()> {
        let path = format!("/v1/pools/{pool}/backends/{name}/drain");
        let deadline = format!("{}s", DRAIN.as_secs());
        self.agent
            .change("PUT", &path, &json!({ "deadline": deadline }))?;
        self.wait(pool, name, "has something left", |view| {
            view.drain
                .as_ref()
                .is_some_and(|drain| drain.status == "drained")
        })
    }

    fn last_of_the_last_pool(&self) -> (String, String) {
        let taken = &self.spares;
        let members = self.servers.iter().rev();
        let mut members =
            members.filter(|server| taken.iter().all(|(_, name, _)| *name != server.name));
        let last = members.next().expect("a tier has servers");
        (last.pool.clone(), last.name.clone())
    }

    fn first_of(&self, pool: &str) -> Result<String> {
        let first = self.servers.iter().find(|server| server.pool == pool);
        Ok(first.context("a pool has servers")?.name.clone())
    }

    fn wait(
        &self,
        pool: &str,
        name: &str,
        otherwise: &str,
        done: impl Fn(&BackendView) -> bool,
    ) -> Result<()> {
        retry(PATIENCE + DRAIN, || {
            let view: BackendView = self
                .agent
                .get(&format!("/v1/pools/{pool}/backends/{name}"))?;
            ensure!(done(&view), "{name} {otherwise}: {view:?}");
            Ok(())
        })
    }
}

/// Routes and addresses, as the example's README has them.
fn wire(lab: &Lab) -> Result<()> {
    let [edge, app, db] = [0, 1, 2].map(|tier| lab.vips()[tier].v4);
    let weir = |tier: usize| lab.balancers()[tier].addresses.v4;
    let router = lab.router().context("there is a router")?;
    router.ip(&format!("route add {edge}/32 via {}\n", weir(Tier::WEB)))?;
    let held = format!("address add {edge}/32 dev lo\n");
    lab.balancers()[Tier::WEB].namespace.ip(&held)?;
    let mut hosts = lab.backends().iter();
    let [web, application, _] = HOSTS.map(|(_, count)| usize::from(count));
    for host in hosts.by_ref().take(web) {
        let lines = format!("route add {app}/32 via {}\n", weir(Tier::APP));
        host.namespace.ip(&lines)?;
    }
    for host in hosts.take(application) {
        let held = format!("address add {app}/32 dev lo\n");
        let lines = format!("route add {db}/32 via {}\n", weir(Tier::DB));
        host.namespace.ip(&(held + &lines))?;
    }
    Ok(())
}

/// A file of the example.
fn path_of(file: &str) -> PathBuf {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    examples.join("three-tier").join(file)
}

/// A file of the example, with the lab's addresses in the place of its own.
fn example(lab: &Lab, file: &str) -> Result<String> {
    let path = path_of(file);
    let mut text = std::fs::read_to_string(&path).context(path.display().to_string())?;
    for (place, vip) in ["203.0.113.10", "10.0.9.1", "10.0.9.2"]
        .into_iter()
        .enumerate()
    {
        text = text.replace(vip, &lab.vips()[place].v4.to_string());
    }
    for (place, balancer) in lab.balancers().iter().enumerate() {
        text = text.replace(
            &format!("10.0.0.{}", 11 + place),
            &balancer.addresses.v4.to_string(),
        );
    }
    for (first, count) in HOSTS {
        for number in first..first + count {
            let address = host(lab, number).addresses.v4.to_string();
            text = text.replace(&format!("10.0.0.{number}"), &address);
        }
    }
    let directory = lab.directory().display().to_string();
    Ok(text
        .replace("/etc/weir", &directory)
        .replace("/var/log/weir", &directory))
}

/// The lab's place of the example's 10.0.0.NUMBER.
fn host(lab: &Lab, number: u8) -> &Backend {
    let mut place = 0;
    for (first, count) in HOSTS {
        if (first..first + count).contains(&number) {
            place += number - first;
            break;
        }
        place += count;
    }
    &lab.backends()[usize::from(place)]
}

impl Server {
    /// A server of a tier's pool.
    fn start(lab: &Lab, tier: usize, pool: &str, name: &str, at: SocketAddr) -> Result<Server> {
        let mut hosts = lab.backends().iter();
        let host = hosts.find(|host| at.ip() == host.addresses.v4);
        let mut host = host.with_context(|| format!("nobody has {at}"))?.clone();
        name.clone_into(&mut host.name);
        let port = at.port();
        let daemon = match tier {
            Tier::WEB => {
                let asks = match pool {
                    "api" => ":8002",
                    "video" => ":8003",
                    _ => ":8001",
                };
                let blocks = example(lab, "web.conf")?.replace(":8001", asks);
                servers::nginx_with(&host, port, &blocks)?
            }
            Tier::APP => {
                let database = lab.vips()[Tier::DB].v4.to_string();
                let arguments = [
                    path_of("app.py"),
                    name.into(),
                    port.to_string().into(),
                    database.into(),
                ];
                servers::program(&host, port, Signal::SIGTERM, move |namespace, _| {
                    let mut command = namespace.command("/usr/bin/python3");
                    command.args(&arguments);
                    command
                })?
            }
            _ => {
                let daemon = servers::postgres(&host, port)?;
                sql(&host, "CREATE TABLE orders (id text PRIMARY KEY)")?;
                daemon
            }
        };
        Ok(Server {
            pool: pool.to_owned(),
            name: name.to_owned(),
            host,
            daemon,
        })
    }
}

/// What a database answers.
fn sql(host: &Backend, statement: &str) -> Result<String> {
    let mut command = host.namespace.command("psql");
    command.args(["-h", &host.addresses.v4.to_string(), "-U", "postgres"]);
    let output = command.args(["-Atc", statement]).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{statement}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
