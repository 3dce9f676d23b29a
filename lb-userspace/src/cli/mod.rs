//! The command line: the agent itself, and clients of its admin API.

mod backend;
mod client;
mod config;
mod detach;
mod events;
mod explain;
mod ha;
mod service;
mod shared;
mod status;
mod table;

use std::{
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::bail;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

use self::client::Client;
use crate::{
    agent,
    config::{Config, Pin},
    dataplane::Question,
    desired::Protocol,
    proxy::bad_files,
    shared::{Location, NoLocation, Options},
};

/// Weir, a load balancer.
#[derive(Parser)]
#[command(name = "weir", version)]
struct Arguments {
    /// Where the agent's admin API is: its Unix socket, or `ADDRESS:PORT`.
    #[arg(
        long,
        global = true,
        env = "WEIR_ADMIN",
        default_value = "/run/weir/admin.sock"
    )]
    admin: String,
    /// Print JSON, as the admin API gives it.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the agent: attach to the interfaces, check health, serve the admin API.
    Agent {
        /// The configuration: a file, in JSON if its name ends in .json, else in TOML; or what
        /// nodes share, as etcd://HOST:PORT[,HOST:PORT]/KEY, or etcds:// for TLS.
        #[arg(long, value_name = "FILE|ADDRESS")]
        config: Source,
        /// With etcd: the file with what is this node's own, `agent` and `ha`.
        #[arg(long, value_name = "FILE")]
        local: Option<PathBuf>,
        /// With etcd: where to keep a copy of the shared part, to go on with without etcd.
        #[arg(long, value_name = "FILE", default_value = "/var/lib/weir/shared.json")]
        copy: PathBuf,
        /// Take over from the agent that runs with the same `agent.admin.socket` and `agent.pin`,
        /// if one does: no connection is refused or lost, and that one ends when what is under way
        /// has. Where this one cannot start, the other goes on.
        #[arg(long)]
        takeover: bool,
    },
    /// Say whether a configuration is valid, and what is wrong with it and with the certificates
    /// that it names; touches nothing.
    Check {
        /// The configuration.
        file: PathBuf,
        /// Do not look at certificates, which may be on another machine.
        #[arg(long)]
        without_files: bool,
    },
    /// End what an agent that was killed has left: detach its program from the interfaces, and
    /// remove its pins. An agent that runs is left alone.
    Detach {
        /// The directory that was its `agent.pin`.
        #[arg(long, default_value_os_t = Pin::default().0)]
        pin: PathBuf,
    },
    /// Put a configuration where several nodes take theirs from.
    #[command(subcommand)]
    Config(config::Verb),
    /// Show the agent, its services and its backends.
    Status,
    /// Show what has happened to this node lately: roles, health, the configuration, other nodes.
    Events,
    /// Say where a client's packets go, and why.
    Explain {
        /// The protocol.
        #[arg(value_enum)]
        protocol: Protocol,
        /// The client's address and port.
        client: SocketAddr,
        /// The VIP and its port.
        vip: SocketAddr,
    },
    /// List, show, add, change or remove services.
    #[command(subcommand)]
    Service(service::Verb),
    /// List, show, add, change or remove backends.
    #[command(subcommand)]
    Backend(backend::Verb),
    /// Show and steer which node holds shared addresses.
    #[command(subcommand)]
    Ha(ha::Verb),
}

/// Runs the command line of this process. Failures are told on standard error.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let show = Show {
        json: arguments.json,
    };
    let client = Client::new(&arguments.admin);
    match arguments.verb {
        Verb::Agent {
            config,
            local,
            copy,
            takeover,
        } => {
            let source = config.with(local, copy)?;
            log();
            agent::run(source, takeover).await
        }
        Verb::Config(verb) => config::run(verb).await,
        Verb::Check {
            file,
            without_files,
        } => check(&file, !without_files),
        Verb::Detach { pin } => detach::run(show, &pin),
        Verb::Explain {
            protocol,
            client: from,
            vip,
        } => {
            let question = Question {
                protocol,
                client: from,
                vip,
            };
            explain::run(&client, show, &question).await
        }
        Verb::Status => status::run(&client, show).await,
        Verb::Events => events::run(&client, show).await,
        Verb::Service(verb) => service::run(&client, show, verb).await,
        Verb::Backend(verb) => backend::run(&client, show, verb).await,
        Verb::Ha(verb) => ha::run(&client, show, verb).await,
    }
}

/// Whether a configuration is valid, and its certificates too if they are here.
fn check(file: &Path, with_files: bool) -> anyhow::Result<()> {
    let config = Config::load(file)?;
    let bad = if with_files {
        bad_files(&config)
    } else {
        Vec::new()
    };
    let lines = bad.iter().map(|bad| format!("{}: {bad}", file.display()));
    let lines: Vec<String> = lines.collect();
    if !lines.is_empty() {
        bail!("{}", lines.join("\n"));
    }
    println!("{}: valid", file.display());
    Ok(())
}

/// Where an agent's configuration is.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    Shared(Location),
}

impl FromStr for Source {
    type Err = NoLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Location::is_meant_by(text) {
            true => text.parse().map(Self::Shared),
            false => Ok(Self::File(text.into())),
        }
    }
}

impl Source {
    fn with(self, local: Option<PathBuf>, copy: PathBuf) -> anyhow::Result<agent::Source> {
        match (self, local) {
            (Self::File(file), None) => Ok(agent::Source::File(file)),
            (Self::File(_), Some(_)) => bail!("--local is for a configuration in etcd alone"),
            (Self::Shared(_), None) => {
                bail!("--local is missing: the file with this node's own `agent` and `ha`")
            }
            (Self::Shared(location), Some(local)) => Ok(agent::Source::Shared(Options {
                location,
                local,
                copy,
            })),
        }
    }
}

fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
}

/// How answers are printed.
#[derive(Clone, Copy)]
struct Show {
    json: bool,
}

impl Show {
    /// As JSON, or as `text` makes it.
    fn print<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(value)?),
            false => println!("{}", text(value)),
        }
        Ok(())
    }
}
