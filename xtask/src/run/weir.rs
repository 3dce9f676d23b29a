//! The demo's agent.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Process};
use tokio::time::{Instant, sleep};

use super::{admin::Admin, agent, front::configuration};

/// How long it may take until all backends are found healthy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent in the balancer's place of a lab. It is ended when this is dropped.
pub(super) struct Weir {
    process: Process,
    socket: PathBuf,
    log: PathBuf,
    admin: Admin,
}

impl Weir {
    pub(super) fn start(agent: &Path, lab: &Lab) -> Result<Self> {
        let [config, socket, log] =
            ["weir.json", "admin.sock", "weir.log"].map(|name| lab.directory().join(name));
        let configuration = configuration(lab, &socket);
        fs::write(&config, format!("{configuration:#}\n"))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = agent::configured(lab.lb().command(agent), &config);
        let output =
            File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdout(output.try_clone()?).stderr(output);
        Ok(Self {
            process: Process::spawn(command)?,
            admin: Admin::at(&socket),
            socket,
            log,
        })
    }

    /// Waits until it has found all backends healthy.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !self.all_healthy().await {
            self.ensure_running()?;
            ensure!(
                Instant::now() < end,
                "not all backends were healthy within {PATIENCE:?}; {}",
                self.said()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn all_healthy(&self) -> bool {
        // It may not listen yet.
        self.admin.pools().await.is_ok_and(|pools| {
            let mut backends = pools.values().flat_map(|pool| pool.backends.values());
            backends.all(|backend| backend.health.status == "healthy")
        })
    }

    pub(super) fn ensure_running(&mut self) -> Result<()> {
        ensure!(
            self.process.is_running(),
            "the agent has ended; {}",
            self.said()
        );
        Ok(())
    }

    fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        format!("it said:\n{}", log.trim_end())
    }

    /// Its admin API.
    pub(super) fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The admin API's Unix socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it logs to.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}
