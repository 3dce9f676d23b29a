//! A lab with an agent that serves HTTP on a VIP.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Plan, Wiring,
    load::{Load, Work},
    retry,
};
use lb_userspace::state::{BackendView, ServiceView};
use serde_json::{Value, json};
use weir_tests::{
    agent::{Agent, PATIENCE},
    web::Web,
};

pub(crate) const WEB: u16 = 8080;
pub(crate) const PORT: u16 = 80;

/// Backends `be1`, ... with a [`Web`] each, in the pool `web`; the service `web` on the VIP.
pub(crate) struct Scene {
    // In the order in which they end.
    pub(crate) agent: Agent,
    pub(crate) webs: Vec<Web>,
    pub(crate) vip: IpAddr,
    pub(crate) lab: Lab,
}

impl Scene {
    /// So many backends; `http` and `pool` are added to the service's `http` and to the pool.
    pub(crate) fn new(backends: u8, http: &Value, pool: &Value) -> Result<Scene> {
        let lab = Lab::new(&Plan {
            wiring: Wiring::Routed,
            backends,
            vips: 1,
            backends_hold_vips: false,
        })?;
        let vip = IpAddr::from(lab.vips()[0].v4);
        lab.lb().ip(&format!("address add {vip}/32 dev lo\n"))?;
        let webs = lab
            .backends()
            .iter()
            .map(|backend| Web::start(backend, WEB));
        let webs = webs.collect::<Result<Vec<_>>>()?;
        let mut document = json!({
            // Cookies need a key that is no secret of everyone's.
            "agent": { "hash_key": "8f1c6a2be07d43559a0cd2714be83f60" },
            "pools": { "web": { "backends": members(&lab, WEB) } },
            "services": { "web": {
                "address": vip, "port": PORT, "protocol": "tcp", "mode": "local", "pool": "web",
                "http": http,
            } },
        });
        merge(&mut document["pools"]["web"], pool);
        let agent = Agent::start(&lab, &document)?;
        Ok(Scene {
            agent,
            webs,
            vip,
            lab,
        })
    }

    /// Has a backend of the pool, new or not, be whoever listens here: on a port of the lab's first.
    pub(crate) fn listen_as(&self, name: &str, port: u16) -> Result<TcpListener> {
        let backend = &self.lab.backends()[0];
        let listener =
            (backend.namespace).run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))??;
        let path = format!("/v1/pools/web/backends/{name}");
        let address = format!("{}:{port}", backend.addresses.v4);
        (self.agent).change("PUT", &path, &json!({ "address": address }))?;
        Ok(listener)
    }

    /// Where clients ask.
    pub(crate) fn target(&self) -> SocketAddr {
        SocketAddr::new(self.vip, PORT)
    }

    /// So many honest clients, at whose cost others may misbehave, and who are at work.
    pub(crate) fn honest(&self, clients: usize) -> Result<Load> {
        let work = Work {
            clients,
            rest: Duration::from_millis(5),
            ..Work::endless(self.target())
        };
        let load = Load::http(self.lab.client(), work)?;
        retry(PATIENCE, || {
            ensure!(load.results().requests > 100, "no load");
            Ok(())
        })?;
        Ok(load)
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.target())
    }

    /// Runs curl in the client's place.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.lab.client().command("curl");
        command.args(["--silent", "--show-error", "--max-time", "20"]);
        Ok(command.args(arguments).output()?)
    }

    /// What curl prints; it must succeed.
    pub(crate) fn get(&self, arguments: &[&str]) -> Result<String> {
        let output = self.curl(arguments)?;
        ensure!(
            output.status.success(),
            "curl {arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.agent.log()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Writes bytes to a new connection, and reads until it is closed or nothing comes for
    /// `patience`.
    pub(crate) fn raw(&self, bytes: &[u8], patience: Duration) -> Result<String> {
        let mut stream = self.connect()?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        // A time-out ends it as well.
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// A connection to the VIP.
    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let target = self.target();
        let stream = (self.lab.client()).run(move || TcpStream::connect(target))?;
        stream.context("connecting to the VIP")
    }

    /// The service as the API shows it.
    pub(crate) fn service(&self) -> Result<ServiceView> {
        self.agent.get("/v1/services/web")
    }

    /// A backend as the API shows it.
    pub(crate) fn backend(&self, name: &str) -> Result<BackendView> {
        self.agent.get(&format!("/v1/pools/web/backends/{name}"))
    }

    /// Requests that the servers have had, all together.
    pub(crate) fn served(&self) -> u64 {
        self.webs.iter().map(Web::requests).sum()
    }
}

/// Every backend of the lab, on a port.
pub(crate) fn members(lab: &Lab, port: u16) -> Value {
    let backends = lab.backends().iter().map(|backend| {
        let address = SocketAddr::new(backend.addresses.v4.into(), port);
        (backend.name.clone(), json!({ "address": address }))
    });
    json!(backends.collect::<BTreeMap<_, _>>())
}

/// Adds the fields of one object to another, table by table.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        match (into.get_mut(key), value) {
            (Some(old), Value::Object(_)) if old.is_object() => merge(old, value),
            _ => into[key] = value.clone(),
        }
    }
}
