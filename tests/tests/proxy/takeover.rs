//! A new agent takes over from one that runs: nobody notices.

use std::{
    net::{SocketAddr, TcpStream},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::{SinkExt as _, StreamExt as _};
use lab::{
    Namespace, Process,
    load::{Load, Work},
    retry, servers,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use weir_tests::{agent::PATIENCE, certificate::self_signed, conversations::Conversations};

use crate::{
    scene::{Scene, members},
    tunnels,
};

const ECHO: u16 = 7;
const TLS: u16 = 443;

/// A proxied service, one with TLS, and one of packets; with echo servers for that.
fn scene(workers: u32) -> Result<(Scene, Vec<servers::Echo>)> {
    let mut scene = Scene::new(2, &json!({ "timeouts": { "drain": "60s" } }), &json!({}))?;
    let backends = scene.lab.backends().iter();
    let echo = backends.map(|backend| servers::echo(backend, ECHO));
    let echo = echo.collect::<Result<Vec<_>>>()?;
    let (chain, key) = self_signed(&scene.lab.directory(), "a", "a.test")?;
    scene.agent.configure(|document| {
        let mut tls = document["services"]["web"].clone();
        tls["port"] = json!(TLS);
        tls["tls"] = json!({ "certificates": [{ "chain": chain, "key": key }] });
        document["services"]["tls"] = tls;
        document["services"]["echo"] = json!({
            "address": scene.vip, "port": ECHO, "protocol": "tcp", "mode": "nat", "pool": "echo",
        });
        document["pools"]["echo"] = json!({ "backends": members(&scene.lab, ECHO) });
        document["agent"]["proxy"]["workers"] = json!(workers);
    })?;
    let old = scene.agent.take_over().context("to have all services")?;
    ended(old)?;
    Ok((scene, echo))
}

/// Waits until an agent that has nothing under way has ended.
fn ended(mut process: Process) -> Result<()> {
    retry(PATIENCE, || {
        ensure!(!process.is_running(), "the old agent goes on");
        Ok(())
    })
}

/// A request that takes so long, once the servers have it.
fn slow(scene: &Scene, millis: u32) -> Result<Child> {
    let served = scene.served();
    let mut command = scene.lab.client().command("curl");
    let path = format!("/slow/{millis}");
    command.args(["--silent", "--show-error", "--fail", &scene.url(&path)]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    retry(PATIENCE, || {
        ensure!(scene.served() > served, "it has not begun");
        Ok(())
    })?;
    Ok(child)
}

fn answered(child: Child) -> Result<()> {
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "a request was cut: {error}");
    Ok(())
}

/// Something that a thread does over and over.
struct Repeated {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Repeated {
    fn start(mut what: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, counted) = (stop.clone(), Arc::<AtomicU64>::clone(&done));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                what()?;
                counted.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, done, thread }
    }

    fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("it panicked"))??;
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// Connections over TLS, a request each.
fn handshakes(scene: &Scene) -> Repeated {
    let client: Namespace = scene.lab.client().clone();
    let chain = scene.lab.directory().join("a.pem").display().to_string();
    let resolve = format!("a.test:{TLS}:{}", scene.vip);
    Repeated::start(move || {
        let mut command = client.command("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
        command.args(["--cacert", &chain, "--resolve", &resolve]);
        let output = command.arg(format!("https://a.test:{TLS}/name")).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "over TLS: {error}");
        Ok(())
    })
}

/// A WebSocket on which something is said over and over.
fn talk(scene: &Scene) -> Result<Repeated> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut socket = runtime.block_on(tunnels::websocket(scene))?;
    Ok(Repeated::start(move || {
        runtime.block_on(async {
            timeout(PATIENCE, socket.send(Message::text("hello"))).await??;
            let heard = timeout(PATIENCE, socket.next()).await?;
            let heard = heard.context("the tunnel closed")??.into_text()?;
            ensure!(heard.as_str() == "hello", "{heard} came back");
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(())
        })
    }))
}

/// Plain connections, a request each.
fn connections(scene: &Scene) -> Result<Load> {
    let work = Work {
        clients: 8,
        per_connection: 1,
        timeout: Duration::from_secs(10),
        ..Work::endless(scene.target())
    };
    Load::http(scene.lab.client(), work)
}

#[test]
fn nobody_notices_a_takeover() -> Result<()> {
    let (mut scene, _echo) = scene(2)?;
    let load = connections(&scene)?;
    let tls = handshakes(&scene);
    let tunnel = talk(&scene)?;
    let pause = Duration::from_millis(20);
    let target = SocketAddr::new(scene.vip, ECHO);
    let packets = Conversations::start(scene.lab.client(), target, 20, pause)?;
    let mut old = Vec::new();
    let mut slow_ones = Vec::new();
    for workers in [2, 1, 4, 3, 2] {
        slow_ones.push(slow(&scene, 3000)?);
        // It is in the old agent's hands, and has said nothing yet.
        let silent = scene.connect()?;
        (scene.agent).configure(|all| all["agent"]["proxy"]["workers"] = json!(workers))?;
        old.push(scene.agent.take_over()?);
        let status = scene.agent.status()?;
        ensure!(status.pid == scene.agent.process().id(), "{status:?}");
        ensure!(!status.interfaces.is_empty(), "{status:?}");
        ask(silent).context("a connection that was silent")?;
        let fresh = Conversations::start(scene.lab.client(), target, 5, pause)?;
        let report = fresh.finish()?;
        ensure!(report.failures.is_empty(), "{:?}", report.failures);
    }
    slow_ones.into_iter().try_for_each(answered)?;
    let results = load.stop();
    println!("{results:?}, and over TLS {}", tls.stop()?);
    ensure!(results.failed == 0, "{results:?}\n{}", scene.agent.log());
    ensure!(results.requests > 100, "{results:?}");
    let report = packets.finish()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    // The first of them still has the tunnel.
    let with_tunnel = old.remove(0);
    old.into_iter().try_for_each(ended)?;
    println!("messages through the tunnel: {}", tunnel.stop()?);
    ended(with_tunnel)
}

/// Asks on a connection, and reads the answer.
fn ask(mut stream: TcpStream) -> Result<()> {
    use std::io::{Read as _, Write as _};
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"HTTP/1.1 200", "{answer:?}");
    Ok(())
}

/// Says why it does not take over, and the other one goes on.
fn fails(scene: &mut Scene, why: &str, configure: impl FnOnce(&mut Value)) -> Result<()> {
    let mut good = Value::Null;
    scene.agent.configure(|document| {
        good = document.clone();
        configure(document);
    })?;
    let failed = scene.agent.take_over();
    let said = failed.err().map(|error| format!("{error:#}"));
    let said = said.with_context(|| format!("it has taken over in spite of {why}"))?;
    ensure!(said.contains(why), "{why}: {said}");
    ensure!(scene.agent.process().is_running(), "{why}: it has ended");
    // It changes what it is told to, and packets and requests see that.
    change(scene)?;
    ensure!(scene.get(&[&scene.url("/name")])?.starts_with("be"));
    scene.agent.configure(|document| *document = good)
}

#[test]
fn who_cannot_take_over_changes_nothing() -> Result<()> {
    let (mut scene, _echo) = scene(2)?;
    let load = connections(&scene)?;
    let tunnel = talk(&scene)?;
    let target = SocketAddr::new(scene.vip, ECHO);
    let pause = Duration::from_millis(20);
    let packets = Conversations::start(scene.lab.client(), target, 20, pause)?;
    fails(&mut scene, "services.web.port", |document| {
        document["services"]["web"]["port"] = json!(0);
    })?;
    fails(&mut scene, "nowhere.pem", |document| {
        document["services"]["tls"]["tls"]["certificates"][0]["chain"] = json!("/nowhere.pem");
    })?;
    fails(&mut scene, "there is no interface nowhere", |document| {
        document["agent"]["interfaces"] = json!(["nowhere"]);
    })?;
    fails(&mut scene, "it must be the same", |document| {
        let other = format!(
            "{}-other",
            document["agent"]["pin"].as_str().unwrap_or_default()
        );
        document["agent"]["pin"] = json!(other);
    })?;
    let taken = format!("{}:80", scene.vip);
    fails(&mut scene, "admin address", |document| {
        document["agent"]["admin"]["listen"] = json!(taken);
    })?;
    // One that does not want to take over is told how to.
    let stranger = scene.agent.config().to_owned();
    let output = started(&scene, &stranger)?;
    ensure!(output.contains("--takeover"), "{output}");
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}\n{}", scene.agent.log());
    let report = packets.finish()?;
    ensure!(report.failures.is_empty(), "{:?}", report.failures);
    tunnel.stop()?;
    // And the next one can.
    ended(scene.agent.take_over()?)
}

/// What an agent says that cannot start.
fn started(scene: &Scene, config: &Path) -> Result<String> {
    let mut command = scene.lab.lb().command(weir_tests::agent::binary());
    let output = command.args(["agent", "--config"]).arg(config).output()?;
    ensure!(!output.status.success(), "it has started");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Changes something, and undoes it, which waits until an agent serves the API.
fn change(scene: &Scene) -> Result<()> {
    for method in ["PUT", "DELETE"] {
        let drain = "/v1/pools/echo/backends/be1/drain";
        scene.agent.change(method, drain, &Value::Null)?;
    }
    Ok(())
}

/// Whether a newcomer has said something to the agent that has not been read.
fn has_asked(scene: &Scene, new: &Process) -> Result<()> {
    let mut command = scene.lab.lb().command("ss");
    let sockets = command.args(["-xanpH"]).output()?;
    let sockets = String::from_utf8(sockets.stdout)?;
    let own = format!("pid={},", new.id());
    let unread = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], ["u_seq", "ESTAB", _, unread, ..] if unread != "0")
    };
    let mut own = sockets.lines().filter(|line| line.contains(&own));
    ensure!(own.any(unread), "it has not asked: {sockets}");
    Ok(())
}

/// One that hangs before it has begun to take the data path is given up.
#[test]
fn a_newcomer_that_hangs_holds_nothing_up() -> Result<()> {
    let (mut scene, _echo) = scene(1)?;
    // It has asked, and hangs before it can have an answer.
    scene.agent.process().pause()?;
    let mut new = Process::spawn(scene.agent.newcomer())?;
    retry(PATIENCE, || has_asked(&scene, &new))?;
    new.pause()?;
    scene.agent.process().resume()?;
    let load = connections(&scene)?;
    change(&scene)?;
    let log = scene.agent.log();
    ensure!(log.contains("it is given up"), "{log}");
    // It wakes up, too late.
    new.resume()?;
    ended(new)?;
    ensure!(scene.agent.process().is_running(), "the agent has ended");
    change(&scene)?;
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}");
    // And the next one can.
    ended(scene.agent.take_over()?)
}

/// One that hangs when it may have the data path keeps it, and whoever reads the log knows whom to
/// kill.
#[test]
fn a_newcomer_that_hangs_with_the_data_path_has_to_be_killed() -> Result<()> {
    let (mut scene, _echo) = scene(1)?;
    let mut new = Process::spawn(scene.agent.newcomer())?;
    let pins = std::fs::metadata(scene.agent.pins())?.ino();
    let (process, place) = (new.id().to_string(), format!(":{pins}"));
    retry(PATIENCE, || {
        let locks = std::fs::read_to_string("/proc/locks")?;
        let has = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words.contains(&&*process) && words.iter().any(|word| word.ends_with(&place))
        };
        ensure!(locks.lines().any(has), "it has no lock");
        Ok(())
    })?;
    // It has its program to load, which takes a while.
    new.pause()?;
    let load = connections(&scene)?;
    let warning = format!("process={process}");
    retry(PATIENCE, || {
        let log = scene.agent.log();
        let warned = log
            .lines()
            .any(|line| line.contains("kill it") && line.contains(&warning));
        ensure!(warned, "{log}");
        Ok(())
    })?;
    let log = scene.agent.log();
    ensure!(!log.contains("it is given up"), "{log}");
    new.signal(Signal::SIGKILL)?;
    ended(new)?;
    change(&scene)?;
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}");
    ended(scene.agent.take_over()?)
}

/// What is known of backends goes on: health, and drains.
#[test]
fn what_is_known_is_handed_over() -> Result<()> {
    let check = json!({ "type": "tcp", "interval": "1h", "timeout": "1s", "fall": 1 });
    let mut scene = Scene::new(3, &json!({}), &json!({ "health_check": check }))?;
    // The pool's health is checked once in an hour: what the next agent finds comes later.
    let dead = scene.webs.remove(0);
    drop(dead);
    ended(scene.agent.take_over()?)?;
    scene.agent.wait_for("web", &["be2", "be3"])?;
    let drain = "/v1/pools/web/backends/be2/drain";
    (scene.agent).change("PUT", drain, &json!({ "deadline": "10m" }))?;
    let before = scene.backend("be1")?.health;
    ended(scene.agent.take_over()?)?;
    let view = scene.backend("be2")?;
    ensure!(view.drain.is_some(), "{view:?}");
    ensure!(before.status == "unhealthy", "{before:?}");
    scene.agent.wait_for("web", &["be3"])?;
    for _ in 0..10 {
        ensure!(scene.get(&[&scene.url("/name")])? == "be3\n");
    }
    Ok(())
}

/// What an agent that a service manager started says to it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(scene: &Scene) -> Result<Self> {
        let path = scene.lab.directory().join("notify.sock");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path })
    }

    /// The next thing that is said.
    fn hears(&self) -> Result<String> {
        let mut said = [0; 200];
        let length = self.socket.recv(&mut said)?;
        Ok(String::from_utf8_lossy(&said[..length]).trim().to_owned())
    }
}

/// A process that is nobody's child here; it is ended when this is dropped.
struct Stranger(Pid);

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill(self.0, Signal::SIGTERM);
        for _ in 0..100 {
            if kill(self.0, None).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// By SIGUSR2 an agent starts the next one itself, and says to the service manager which is which.
#[test]
fn an_agent_replaces_itself_when_it_is_told_to() -> Result<()> {
    let (mut scene, _echo) = scene(1)?;
    let manager = Manager::new(&scene)?;
    let load = connections(&scene)?;
    let mut command = scene.agent.newcomer();
    command.env("NOTIFY_SOCKET", &manager.path);
    let started = Process::spawn(command)?;
    ensure!(manager.hears()? == "READY=1");
    retry(PATIENCE, || {
        ensure!(
            !scene.agent.process().is_running(),
            "the first agent goes on"
        );
        Ok(())
    })?;
    ensure!(scene.agent.status()?.pid == started.id());
    let mut started = started;
    started.signal(Signal::SIGUSR2)?;
    let (said, again) = (manager.hears()?, manager.hears()?);
    let both = [said, again];
    let main = both.iter().find_map(|said| said.strip_prefix("MAINPID="));
    let main: i32 = main.with_context(|| format!("{both:?}"))?.parse()?;
    let _successor = Stranger(Pid::from_raw(main));
    ensure!(both.iter().any(|said| said == "READY=1"), "{both:?}");
    ended(started)?;
    ensure!(scene.agent.status()?.pid == main as u32);
    let results = load.stop();
    ensure!(results.failed == 0, "{results:?}");
    Ok(())
}
