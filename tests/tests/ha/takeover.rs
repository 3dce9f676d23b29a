//! A new agent takes over from one that holds addresses: no other node notices.

use std::{net::IpAddr, process::Stdio, time::Duration};

use anyhow::{Result, ensure};
use lab::{Namespace, Process, retry};
use lb_userspace::ha::Role;
use weir_tests::{
    agent::{Agent, PATIENCE},
    conversations::Conversations,
    probe::Probe,
};

use crate::scene::{Scene, every, groups, wait_for_role};

/// Notes every address that is removed in a namespace.
pub(crate) struct Removals {
    process: Process,
    log: std::path::PathBuf,
}

impl Removals {
    pub(crate) fn watch(namespace: &Namespace, log: std::path::PathBuf) -> Result<Self> {
        let mut command = namespace.command("ip");
        command.args(["-o", "monitor", "address"]);
        command.stdout(std::fs::File::create(&log)?);
        command.stdin(Stdio::null());
        Ok(Self {
            process: Process::spawn(command)?,
            log,
        })
    }

    /// None of these has been, so far.
    pub(crate) fn spare(mut self, addresses: &[IpAddr]) -> Result<()> {
        self.process.stop()?;
        let log = std::fs::read_to_string(&self.log)?;
        let prolonged = addresses
            .iter()
            .any(|address| log.contains(&address.to_string()));
        ensure!(prolonged, "nothing was seen: {log}");
        let removed = log.lines().filter(|line| line.starts_with("Deleted"));
        let removed: Vec<_> = removed
            .filter(|line| {
                let mut words = line.split([' ', '/']);
                words.any(|word| word.parse().is_ok_and(|found| addresses.contains(&found)))
            })
            .collect();
        ensure!(removed.is_empty(), "{removed:?}");
        Ok(())
    }
}

/// Takes over, and waits for the old agent to end.
pub(crate) fn take_over(agent: &mut Agent) -> Result<()> {
    let mut old = agent.take_over()?;
    retry(PATIENCE, || {
        ensure!(!old.is_running(), "the old agent goes on");
        Ok(())
    })
}

#[test]
fn who_is_active_stays_so() -> Result<()> {
    let scene = Scene::new()?;
    let vips: Vec<IpAddr> = [scene.shared(true), scene.shared(false)].concat();
    let mut first = scene.start(0, &every(300))?;
    wait_for_role(&first, Role::Active)?;
    let mut second = scene.start(1, &every(300))?;
    wait_for_role(&second, Role::Backup)?;
    let changes = |agent: &Agent| -> Result<u64> {
        let groups = groups(agent)?;
        Ok(groups
            .values()
            .map(|group| group.counters.transitions)
            .sum())
    };
    let before = changes(&second)?;
    let removals = Removals::watch(
        &scene.balancer(0).namespace,
        scene.lab.directory().join("removals"),
    )?;
    let client = scene.lab.client();
    let pause = Duration::from_millis(10);
    let held = [true, false].map(|v4| Conversations::start(client, scene.vip(v4), 5, pause));
    let probes = [true, false].map(|v4| Probe::start(client, scene.vip(v4), pause));
    for _ in 0..3 {
        take_over(&mut first)?;
        wait_for_role(&first, Role::Active)?;
        // Longer than the other would wait for it.
        std::thread::sleep(Duration::from_millis(1500));
    }
    wait_for_role(&second, Role::Backup)?;
    ensure!(changes(&second)? == before, "{}", second.log());
    removals.spare(&vips)?;
    for (probe, talk) in probes.into_iter().zip(held) {
        let (outage, report) = (probe?.finish()?, talk?.finish()?);
        println!(
            "outage {:?}, {} of {} datagrams lost",
            outage.longest, outage.lost, outage.sent
        );
        ensure!(report.failures.is_empty(), "{:?}", report.failures);
    }
    // Nor does one that waits for the other forget to.
    take_over(&mut second)?;
    wait_for_role(&second, Role::Backup)?;
    wait_for_role(&first, Role::Active)
}
