//! `cargo xtask lab`: a lab that stays, to try things in by hand. A process in the background
//! holds it; a file says which, and is locked for as long as that lives.

use std::{
    env,
    fmt::Write as _,
    fs::{self, File, TryLockError},
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{self, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Lab, Namespace, Pair, Plan, Wiring, retry, servers};
use nix::{
    sys::signal::{SigSet, Signal, kill},
    unistd::{Pid, geteuid, setsid},
};

use crate::setup;

/// The lab's name.
const ID: &str = "demo";
/// The holder's process id, and what the lab looks like.
const STATE: &str = "/run/weir-lab";
/// What the holder and its servers complain about.
const LOG: &str = "/run/weir-lab.log";
const UP: &str = "the lab is up: `cargo xtask lab down` removes it";
/// How long making or removing the lab may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Verbs of `cargo xtask lab`.
#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Make the lab; every backend serves HTTP on port 80 and echoes on port 7, TCP and UDP.
    Up(Shape),
    /// Remove it.
    Down,
    /// Open a shell in one of its namespaces.
    Shell {
        /// `client`, `lb`, `be1` and so on.
        name: String,
    },
    /// Be the process that `up` leaves in the background.
    #[command(hide = true)]
    Hold(Shape),
}

/// What the lab looks like.
#[derive(clap::Args)]
pub(crate) struct Shape {
    /// How many backends there are.
    #[arg(long, default_value_t = 3)]
    backends: u8,
    /// How many VIPs, each an IPv4 and an IPv6 address.
    #[arg(long, default_value_t = 1)]
    vips: u8,
    /// All on one Ethernet segment, instead of a link of its own for each.
    #[arg(long)]
    segment: bool,
    /// Backends have the VIPs on lo, as DSR and tunnels need it.
    #[arg(long)]
    backends_hold_vips: bool,
}

pub(crate) fn verb(verb: &Verb) -> Result<()> {
    ensure!(
        geteuid().is_root(),
        "a lab is made of network namespaces, which needs root: \
         `sudo -E env \"PATH=$PATH\" cargo xtask lab ...`"
    );
    match verb {
        Verb::Up(shape) => up(shape),
        Verb::Down => down(),
        Verb::Shell { name } => shell(name),
        Verb::Hold(shape) => hold(shape),
    }
}

fn up(shape: &Shape) -> Result<()> {
    setup::for_lab()?;
    ensure!(state()?.is_some(), UP);
    let log = File::create(LOG).with_context(|| format!("cannot make {LOG}"))?;
    let mut command = Command::new(env::current_exe()?);
    command
        .args(["lab", "hold"])
        .args(shape.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // SAFETY: between fork and exec, the closure makes one system call.
    unsafe {
        // The terminal's signals are not for the holder.
        command.pre_exec(|| setsid().map(drop).map_err(Into::into));
    }
    let mut holder = command.spawn().context("cannot start the lab's holder")?;
    let description = retry(PATIENCE, || {
        let state = fs::read_to_string(STATE)?;
        if let Some((_, description)) = state.split_once('\n') {
            return Ok(Some(description.to_owned()));
        }
        ensure!(holder.try_wait()?.is_some(), "the lab is not made yet");
        Ok(None)
    })?;
    match description {
        Some(description) => print!("{description}"),
        None => bail!("the lab could not be made: {}", fs::read_to_string(LOG)?),
    }
    Ok(())
}

impl Shape {
    fn arguments(&self) -> Vec<String> {
        let flags = [
            ("--segment", self.segment),
            ("--backends-hold-vips", self.backends_hold_vips),
        ];
        let set = flags.into_iter().filter(|(_, set)| *set);
        let mut arguments: Vec<_> = set.map(|(flag, _)| flag.to_owned()).collect();
        arguments.push(format!("--backends={}", self.backends));
        arguments.push(format!("--vips={}", self.vips));
        arguments
    }

    fn plan(&self) -> Plan {
        Plan {
            wiring: if self.segment {
                Wiring::Segment
            } else {
                Wiring::Routed
            },
            backends: self.backends,
            vips: self.vips,
            backends_hold_vips: self.backends_hold_vips,
        }
    }
}

/// The state file, emptied and locked; `None` if a holder has it locked.
fn state() -> Result<Option<File>> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(STATE);
    let file = file.with_context(|| format!("cannot open {STATE}"))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(None),
        locked => locked.with_context(|| format!("cannot lock {STATE}"))?,
    }
    file.set_len(0)?;
    Ok(Some(file))
}

fn hold(shape: &Shape) -> Result<()> {
    // Before there are threads, which take this over.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    let mut state = state()?.context(UP)?;
    let lab = Lab::named(ID, &shape.plan())?;
    let mut daemons = Vec::new();
    let mut echoes = Vec::new();
    for backend in lab.backends() {
        daemons.push(servers::nginx(backend, 80)?);
        echoes.push(servers::echo(backend, 7)?);
    }
    state.write_all(format!("{}\n{}", process::id(), description(&lab)).as_bytes())?;
    signals.wait()?;
    drop((daemons, echoes, lab));
    state.set_len(0)?;
    Ok(())
}

fn description(lab: &Lab) -> String {
    let mut text = String::new();
    let mut line = |what: &str, Pair { v4, v6 }: Pair| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{what:12} {v4:15} {v6}");
    };
    line("client", lab.client_addresses());
    line("lb", lab.lb_addresses());
    lab.backends()
        .iter()
        .for_each(|backend| line(&backend.name, backend.addresses));
    lab.vips().iter().for_each(|vip| line("VIP", *vip));
    let nics = lab.lb_devices().join(", ");
    text + &format!("lb's NICs: {nics}\n`cargo xtask lab shell lb` opens a shell there\n")
}

fn down() -> Result<()> {
    if state()?.is_some() {
        // Nobody holds a lab, but a holder that was killed has left one.
        return lab::remove(ID);
    }
    let holder = fs::read_to_string(STATE)?;
    let holder = holder.lines().next().context("the lab is being made")?;
    kill(Pid::from_raw(holder.parse()?), Signal::SIGTERM)?;
    retry(PATIENCE, || {
        ensure!(state()?.is_some(), "the lab is not removed yet");
        Ok(())
    })
}

fn shell(name: &str) -> Result<()> {
    let namespace = Namespace::open(&format!("weir-{ID}-{name}"))
        .context("there is no such namespace; `cargo xtask lab up` makes the lab")?;
    let shell = env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    Err(namespace.command(shell).exec()).context("cannot open a shell")
}
