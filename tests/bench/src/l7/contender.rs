//! Who is compared: the same proxying by each, in a network of its own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Lab, Plan, Process,
    load::{Load, Work},
    retry,
    servers::{self, Daemon},
};
use serde_json::json;
use weir_tests::{certificate, cpu};

use super::{cases::Case, proxies};
use crate::{agent, napi, pinned::run};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const PORT: u16 = 80;
pub(crate) const TLS_PORT: u16 = 443;
/// The name that the certificate is for.
pub(crate) const NAME: &str = "weir.test";

pub(crate) const WEIR: &str = "Weir";
pub(crate) const NGINX: &str = "nginx";
pub(crate) const HAPROXY: &str = "HAProxy";
pub(crate) const NAMES: [&str; 3] = [WEIR, NGINX, HAPROXY];

/// One of those that are compared.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) workers: usize,
    process: Process,
    _servers: Vec<Daemon>,
    // Last: what runs in it has ended by then.
    pub(crate) lab: Lab,
}

/// What a proxy needs to know.
pub(crate) struct Place<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) cpus: &'a [usize],
    /// Weir's executable.
    weir: &'a Path,
    /// PEM files.
    pub(crate) chain: &'a Path,
    pub(crate) key: &'a Path,
}

impl Place<'_> {
    /// Where clients connect to, without and with TLS.
    pub(crate) fn addresses(&self) -> [SocketAddr; 2] {
        let vip = self.lab.vips()[0].v4;
        [PORT, TLS_PORT].map(|port| (vip, port).into())
    }

    /// The servers.
    pub(crate) fn backends(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let all = self.lab.backends().iter();
        all.map(|backend| (backend.name.as_str(), (backend.addresses.v4, PORT).into()))
    }
}

/// All of them, or Weir alone by this executable, each with one worker, then with two; seen to be
/// working.
pub(crate) fn all(alone: Option<&Path>) -> Result<Vec<Contender>> {
    let (names, weir) = match alone {
        Some(weir) => (&[WEIR][..], weir.to_owned()),
        None => (&NAMES[..], agent::shipped()?),
    };
    let mut all = Vec::new();
    let (first, last) = (cpu::first()?, cpu::last()?);
    for cpus in [&[last][..], &[first, last]] {
        for name in names {
            all.push(Contender::start(name, cpus, &weir)?);
        }
    }
    Ok(all)
}

fn weir(place: &Place<'_>) -> Result<Process> {
    let backends = place.backends().map(|(name, address)| {
        let backend = json!({ "address": address });
        (name.to_owned(), backend)
    });
    let service = |address: SocketAddr| {
        json!({
            "address": address.ip(), "port": address.port(), "protocol": "tcp", "mode": "local",
            "pool": "web",
            "http": {
                "balance": "round-robin",
                "request_id": { "enabled": false },
                "timeouts": { "keepalive": "10m" },
            },
        })
    };
    let [plain, tls] = place.addresses().map(service);
    let mut document = json!({
        "agent": { "proxy": { "workers": place.cpus.len() } },
        "pools": { "web": { "backends": backends.collect::<serde_json::Map<_, _>>() } },
        "services": { "plain": plain, "tls": tls },
    });
    document["services"]["tls"]["tls"] = json!({
        "certificates": [{ "chain": place.chain, "key": place.key }], "min_version": "1.3",
    });
    agent::start_other(place.weir, place.lab, place.cpus, document)
}

impl Contender {
    fn start(name: &'static str, cpus: &[usize], weir: &Path) -> Result<Self> {
        let mut lab = Lab::new(&Plan {
            backends: 2,
            ..Plan::default()
        })?;
        if name != WEIR {
            lab.pass_at_lb()?;
        }
        let bodies = bodies(&lab)?;
        let servers = lab.backends().iter();
        let servers = servers.map(|backend| {
            let name = &backend.name;
            let server = format!(
                "server {{ listen {PORT} backlog=4096; location = / {{ return 200 \"{name}\\n\"; }} {bodies} }}"
            );
            servers::nginx_with(backend, PORT, &server)
        });
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let (chain, key) = certificate::self_signed(&lab.directory(), "proxy", NAME)?;
        run(
            lab.lb(),
            &format!("ip addr add {}/32 dev lo", lab.vips()[0].v4),
        )?;
        for host in [lab.lb(), lab.client()] {
            // A connection for each request leaves one in TIME_WAIT.
            run(host, "sysctl -qw net.ipv4.tcp_tw_reuse=1")?;
            run(host, "sysctl -qw net.core.somaxconn=4096")?;
        }
        for device in lab.lb_devices() {
            napi::enable(lab.lb(), device)?;
        }
        let place = Place {
            lab: &lab,
            cpus,
            weir,
            chain: &chain,
            key: &key,
        };
        let process = match name {
            NGINX => proxies::nginx(&place),
            HAPROXY => proxies::haproxy(&place),
            _ => self::weir(&place),
        }?;
        let contender = Self {
            name,
            workers: cpus.len(),
            process,
            _servers: servers,
            lab,
        };
        contender.verify()?;
        contender.poll_by_threads()?;
        Ok(contender)
    }

    /// Frames that come are taken by threads of the kernel's own, and so on nobody's account:
    /// those for the balancer on the last CPU, all others on the first.
    fn poll_by_threads(&self) -> Result<()> {
        for device in self.lab.lb_devices() {
            napi::poll_by_threads(self.lab.lb(), device, cpu::last()?)?;
        }
        let hosts = self.lab.backends().iter();
        let hosts = hosts.map(|backend| &backend.namespace);
        for host in hosts.chain([self.lab.client()]) {
            napi::poll_by_threads(host, "eth0", cpu::first()?)?;
        }
        Ok(())
    }

    /// Both servers answer, by every version of HTTP.
    fn verify(&self) -> Result<()> {
        let answered = || {
            let target = (self.lab.vips()[0].v4, PORT).into();
            let results = Load::http(self.lab.client(), Work::new(target, 40))?.finish()?;
            ensure!(
                results.failed == 0 && results.by_backend.len() == 2,
                "{results:?}"
            );
            for (option, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
                let url = format!("https://{}/", self.lab.vips()[0].v4);
                let mut curl = self.lab.client().command("curl");
                curl.args(["-skS", "--tlsv1.3", option, "-o", "/dev/null"]);
                curl.args(["-w", "%{http_code} %{http_version}", &url]);
                let output = curl.output()?;
                let said = String::from_utf8_lossy(&output.stdout);
                ensure!(said == format!("200 {version}"), "curl {option}: {said}");
            }
            Ok(())
        };
        let log = self.lab.directory().join(match self.name {
            NGINX => "nginx.log",
            HAPROXY => "haproxy.log",
            _ => "weir.log",
        });
        retry(PATIENCE, answered).with_context(|| {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            format!("{} does not serve; it says: {log}", self.name)
        })
    }

    /// What a case asks for.
    pub(crate) fn url(&self, case: &Case) -> String {
        let scheme = if case.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.lab.vips()[0].v4, case.path)
    }

    /// Nanoseconds of CPU that all its processes have taken so far.
    pub(crate) fn time(&self) -> Result<u64> {
        self.process.family().into_iter().map(napi::time).sum()
    }

    /// Bytes of memory that all its processes have, what several share counted once.
    pub(crate) fn memory(&self) -> Result<u64> {
        let mut kilobytes = 0;
        for process in self.process.family() {
            let path = format!("/proc/{process}/smaps_rollup");
            let text = std::fs::read_to_string(path)?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let line = line.context("the kernel does not tell")?;
            kilobytes += line.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(kilobytes * 1024)
    }
}

/// Files of several sizes, and where the servers have them.
fn bodies(lab: &Lab) -> Result<String> {
    let mut locations = String::from("open_file_cache max=10;");
    for (name, size) in [("10k", 10 << 10), ("1m", 1 << 20)] {
        let file: PathBuf = lab.directory().join(name);
        std::fs::write(&file, "a".repeat(size))?;
        locations += &format!(" location = /{name} {{ alias {}; }}", file.display());
    }
    Ok(locations)
}
