//! The real agent in a lab's balancer namespace, and its admin API.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Balancer, Lab, Namespace, Process, retry};
use lb_userspace::state::{PoolView, ServiceView, StatusView};
use nix::sys::signal::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use crate::executable::executable;

/// How long the agent may take to do what it is told.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The agent's binary, built from the sources as they are.
///
/// # Panics
///
/// Where it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| executable("weir"));
    &BINARY
}

/// A running agent. It is ended when this is dropped.
pub struct Agent {
    process: Process,
    namespace: Namespace,
    config: PathBuf,
    sharing: Vec<String>,
    socket: PathBuf,
    pins: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Starts the agent in the lab, on all the balancer's NICs with native XDP, and waits until
    /// it answers. `document` is the configuration without what concerns the lab.
    ///
    /// # Errors
    ///
    /// What the agent said before it ended.
    pub fn start(lab: &Lab, document: &Value) -> Result<Self> {
        Self::start_at(lab, &lab.balancers()[0], document)
    }

    /// The same at this balancer.
    ///
    /// # Errors
    ///
    /// As [`Agent::start`].
    pub fn start_at(lab: &Lab, balancer: &Balancer, document: &Value) -> Result<Self> {
        Self::start_with(lab, balancer, document, &[])
    }

    /// The same with a configuration in etcd; `local` is what is the node's own. Its copy on
    /// disk is kept for the next one that is started here.
    ///
    /// # Errors
    ///
    /// As [`Agent::start`].
    pub fn start_sharing(
        lab: &Lab,
        balancer: &Balancer,
        local: &Value,
        location: &str,
    ) -> Result<Self> {
        let copy = lab.directory().join(format!("{}.json", balancer.name));
        let copy = copy.to_str().context("the path of the lab")?;
        let arguments = ["--config", location, "--copy", copy];
        Self::start_with(lab, balancer, local, &arguments)
    }

    /// `sharing`: how it is told of what it shares.
    fn start_with(
        lab: &Lab,
        balancer: &Balancer,
        document: &Value,
        sharing: &[&str],
    ) -> Result<Self> {
        // A pair shares the directory.
        let own = |directory: PathBuf| match lab.balancers().len() {
            1 => directory,
            _ => directory.join(&balancer.name),
        };
        let directory = own(lab.directory());
        std::fs::create_dir_all(&directory)?;
        let socket = directory.join("admin.sock");
        let pins = own(lab.pins());
        let mut document = document.clone();
        let interfaces = lab.lb_devices().iter();
        document["agent"]["interfaces"] = interfaces
            .map(|name| json!({ "name": name, "xdp": "native" }))
            .collect();
        document["agent"]["admin"]["socket"] = json!(socket);
        document["agent"]["pin"] = json!(pins);
        // Memory for a million, the default, takes the kernel a second or more at each start.
        let flows = &mut document["agent"]["limits"]["flows"];
        if flows.is_null() {
            *flows = json!(65_536);
        }
        let config = directory.join("weir.json");
        std::fs::write(&config, document.to_string())?;
        let log = directory.join("weir.log");
        let namespace = balancer.namespace.clone();
        let sharing: Vec<_> = sharing.iter().map(|&word| word.to_owned()).collect();
        let mut agent = Self {
            process: launch(&namespace, &config, &sharing, &[], &log)?,
            namespace,
            config,
            sharing,
            socket,
            pins,
            log,
        };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let answered = retry(PATIENCE, || {
            // One that has ended is not worth waiting for.
            let running = self.process.is_running();
            running.then(|| self.status()).transpose()
        })?;
        answered.with_context(|| format!("it has ended: {}", self.log()))?;
        Ok(())
    }

    /// Starts another with the same configuration, which has ended or was killed before.
    ///
    /// # Errors
    ///
    /// As [`Agent::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.launch_again()?;
        self.wait_until_ready()
    }

    /// The same, without waiting for it.
    ///
    /// # Errors
    ///
    /// It cannot be run.
    pub fn launch_again(&mut self) -> Result<()> {
        self.process = self.launch(&[])?;
        Ok(())
    }

    fn launch(&self, more: &[&str]) -> Result<Process> {
        let Self {
            namespace,
            config,
            sharing,
            log,
            ..
        } = self;
        launch(namespace, config, sharing, more, log)
    }

    /// Has another take over, with the configuration as it is now, and waits until it has; the old
    /// one, which ends what is under way.
    ///
    /// # Errors
    ///
    /// It has not, and has ended; this is the old one still.
    pub fn take_over(&mut self) -> Result<Process> {
        let begun = self.log().len();
        let mut new = self.launch(&["--takeover"])?;
        let ready = retry(PATIENCE, || {
            // One that has ended is not worth waiting for.
            let running = new.is_running();
            let log = self.log();
            let log = log.get(begun..).unwrap_or_default();
            let ready = log.contains(": ready") && log.contains("another agent has taken over");
            ensure!(ready || !running, "not yet: {log}");
            Ok(ready)
        })?;
        ensure!(ready, "it has ended: {}", &self.log()[begun..]);
        Ok(std::mem::replace(&mut self.process, new))
    }

    /// What starts another one that takes over, with the configuration as it is now: for tests that
    /// see to it themselves.
    pub fn newcomer(&self) -> Command {
        let mut command = self.namespace.command(binary());
        command.args(["agent", "--takeover", "--config"]);
        command.arg(&self.config);
        command
    }

    /// Changes the configuration that [`Agent::start_again`] starts with.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written.
    pub fn configure(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut document = serde_json::from_slice(&std::fs::read(&self.config)?)?;
        change(&mut document);
        Ok(std::fs::write(&self.config, document.to_string())?)
    }

    /// The file with its configuration.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Where it pins what outlives it.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }

    /// Its admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it with a signal; its exit status and whether its socket is gone.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn end(mut self, signal: Signal) -> Result<()> {
        self.stop(signal)
    }

    /// The same, and keeps what [`Agent::start_again`] needs.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        retry(PATIENCE, || {
            ensure!(!self.process.is_running(), "it goes on: {}", self.log());
            Ok(())
        })
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    ///
    /// There is no answer, or a refusal.
    pub fn status(&self) -> Result<StatusView> {
        self.get("/v1/status")
    }

    /// `GET /v1/services`.
    ///
    /// # Errors
    ///
    /// As [`Agent::status`].
    pub fn services(&self) -> Result<BTreeMap<String, ServiceView>> {
        self.get("/v1/services")
    }

    /// `GET /v1/pools`.
    ///
    /// # Errors
    ///
    /// As [`Agent::status`].
    pub fn pools(&self) -> Result<BTreeMap<String, PoolView>> {
        self.get("/v1/pools")
    }

    /// One value of `GET /metrics`, by its name and labels as they are printed.
    ///
    /// # Errors
    ///
    /// As [`Agent::status`]; or there is no such metric.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = self.metrics()?;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value
            .with_context(|| format!("no {name} in {text}"))?
            .parse()?)
    }

    /// The metrics that count dropped packets and are not zero, as they are printed.
    ///
    /// # Errors
    ///
    /// As [`Agent::status`].
    pub fn drops(&self) -> Result<Vec<String>> {
        let text = self.metrics()?;
        let drops = text
            .lines()
            .filter(|line| line.contains("_drops_total") && !line.starts_with('#'))
            .filter(|line| !line.ends_with(" 0"));
        Ok(drops.map(str::to_owned).collect())
    }

    fn metrics(&self) -> Result<String> {
        let (status, text) = self.request("GET", "/metrics", "")?;
        ensure!(status == 200, "GET /metrics: {status} {text}");
        Ok(text)
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    ///
    /// As [`Agent::status`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let (status, body) = self.request("GET", path, "")?;
        ensure!(status == 200, "GET {path}: {status} {body}");
        Ok(serde_json::from_str(&body)?)
    }

    /// Makes a change that must succeed.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn change(&self, method: &str, path: &str, body: &Value) -> Result<()> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let (status, answer) = self.request(method, path, &body)?;
        ensure!(status < 300, "{method} {path} {body}: {status} {answer}");
        Ok(())
    }

    /// Any request: status and body of the answer.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let written = write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // What is too large is refused, with an answer, before all of it was taken.
        if let Err(error) = written
            && error.kind() != ErrorKind::BrokenPipe
        {
            return Err(error.into());
        }
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("no status line")?.parse()?;
        while !line.trim().is_empty() {
            line.clear();
            answer.read_line(&mut line)?;
        }
        let mut body = String::new();
        answer.read_to_string(&mut body)?;
        Ok((status, body))
    }

    /// Runs `weir` as a client of this agent.
    ///
    /// # Errors
    ///
    /// It cannot be run.
    pub fn weir(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary());
        command.arg("--admin").arg(&self.socket).args(arguments);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Waits until these backends of a pool, and no others, take new flows.
    ///
    /// # Errors
    ///
    /// They do not in time.
    pub fn wait_for(&self, pool: &str, in_use: &[&str]) -> Result<()> {
        retry(PATIENCE, || {
            let pools = self.pools()?;
            let backends = &pools.get(pool).context("no such pool")?.backends;
            let used = backends.iter().filter(|(_, backend)| backend.in_use);
            let used: Vec<_> = used.map(|(name, _)| name.as_str()).collect();
            if used != in_use {
                bail!("in use: {used:?}, wanted: {in_use:?}");
            }
            Ok(())
        })
    }
}

fn launch(
    namespace: &Namespace,
    config: &Path,
    sharing: &[String],
    more: &[&str],
    log: &Path,
) -> Result<Process> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)?;
    let mut command = namespace.command(binary());
    let option = match sharing {
        [] => "--config",
        _ => "--local",
    };
    command.args(["agent", option]).arg(config).args(sharing);
    command.args(more);
    command.stderr(log);
    Process::spawn(command)
}

/// A pool of these backends, checked twice a second.
pub fn pool<'a>(backends: impl IntoIterator<Item = (&'a str, SocketAddr)>, check: &str) -> Value {
    let backends: BTreeMap<&str, Value> = backends
        .into_iter()
        .map(|(name, address)| (name, json!({ "address": address })))
        .collect();
    let mut pool = json!({ "backends": backends });
    if !check.is_empty() {
        pool["health_check"] = json!({
            "type": check, "interval": "200ms", "timeout": "1s", "rise": 2, "fall": 2,
        });
    }
    pool
}
