//! keepalived as the other node, in both roles.

use std::{
    fmt::Write as _,
    fs::{self, File},
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{Process, retry};
use lb_userspace::ha::Role;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use weir_tests::agent::{Agent, PATIENCE};

use crate::{
    capture::{Capture, What},
    scene::{Scene, VRID, every, groups, wait_for_role},
};

const INTERVAL: u64 = 200;
/// Noisy machines may need this much longer than arithmetic says.
const SLACK: Duration = Duration::from_secs(1);

/// A running keepalived at the second balancer.
struct Keepalived {
    process: Process,
    log: PathBuf,
}

impl Keepalived {
    fn start(scene: &Scene, unicast: bool) -> Result<Self> {
        let directory = scene.lab.directory().join("keepalived");
        fs::create_dir_all(&directory)?;
        let mut config = "global_defs {\n  vrrp_version 3\n}\n".to_owned();
        for (name, v4) in [("v4", true), ("v6", false)] {
            let interval = INTERVAL as f64 / 1000.0;
            write!(
                config,
                "vrrp_instance {name} {{\n  state BACKUP\n  nopreempt\n  interface lan\n  \
                 virtual_router_id {VRID}\n  priority 100\n  advert_int {interval}\n"
            )?;
            if unicast {
                let [ours, theirs] = own_addresses(scene, v4);
                write!(
                    config,
                    "  unicast_src_ip {theirs}\n  unicast_peer {{\n    {ours}\n  }}\n"
                )?;
            }
            config += "  virtual_ipaddress {\n";
            for address in scene.shared(v4) {
                writeln!(config, "    {address} dev lan")?;
            }
            config += "  }\n}\n";
        }
        let file = directory.join("keepalived.conf");
        fs::write(&file, config)?;
        let log = directory.join("log");
        let output = File::create(&log)?;
        let mut command = scene.balancer(1).namespace.command("keepalived");
        command
            .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"])
            .arg("--use-file")
            .arg(&file)
            .arg("--pid")
            .arg(directory.join("pid"))
            .arg("--vrrp_pid")
            .arg(directory.join("vrrp_pid"))
            .stdout(output.try_clone()?)
            .stderr(output);
        let process = Process::spawn(command)?;
        Ok(Self { process, log })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a service manager would.
    fn end(mut self) -> Result<()> {
        self.process.stop().map(drop)
    }

    /// Waits until it knows that another is active.
    fn wait_for_backup(&self) -> Result<()> {
        retry(PATIENCE, || {
            let entered = self.log().matches("Entering BACKUP STATE").count();
            ensure!(entered >= 2, "{}", self.log());
            Ok(())
        })
    }
}

/// Both balancers' own addresses of a family.
fn own_addresses(scene: &Scene, v4: bool) -> [IpAddr; 2] {
    [0, 1].map(|number| scene.balancer(number).addresses.both()[usize::from(!v4)])
}

/// Weir at the first balancer: the better one, which does not preempt.
fn weir(scene: &Scene, unicast: bool) -> Result<Agent> {
    let mut group = every(INTERVAL);
    group["priority"] = json!(150);
    let mut document = scene.document(&group);
    if unicast {
        for (name, v4) in [("v4", true), ("v6", false)] {
            let [ours, theirs] = own_addresses(scene, v4);
            document["ha"]["groups"][name]["unicast_peers"] = json!([theirs]);
            document["ha"]["groups"][name]["source"] = json!(ours);
            if !v4 {
                // Debian's keepalived sends IPv6's to peers with the kernel's hop limit.
                document["ha"]["groups"][name]["unicast_min_ttl"] = json!(64);
            }
        }
    }
    Agent::start_at(&scene.lab, scene.balancer(0), &document)
}

/// For so long nobody but this one may speak as the active one.
fn stays(capture: &Capture, who: &str, vips: &[IpAddr]) {
    let since = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(capture.claimants(vips, since), [who]);
}

/// A life together: each takes over from the other, by death, by hand-over and after a split.
fn get_on(unicast: bool) -> Result<()> {
    let scene = Scene::new()?;
    let vips: Vec<IpAddr> = [scene.shared(true), scene.shared(false)].concat();
    let capture = Capture::start(&scene.lab)?;
    let mut agent = weir(&scene, unicast)?;
    wait_for_role(&agent, Role::Active)?;
    let keepalived = Keepalived::start(&scene, unicast)?;
    keepalived.wait_for_backup()?;
    stays(&capture, "lb", &vips);

    // Weir dies; keepalived takes over, and Weir, though better, leaves it that.
    agent.process().signal(Signal::SIGKILL)?;
    scene.wait_for_holder(1)?;
    drop(agent);
    let agent = weir(&scene, unicast)?;
    wait_for_role(&agent, Role::Backup)?;
    stays(&capture, "lb2", &vips);
    for (name, v4) in [("v4", true), ("v6", false)] {
        let group = groups(&agent)?.remove(name).expect("the group");
        ensure!(group.counters.adverts_discarded == 0, "{}", agent.log());
        let (address, peer) = group.peers.iter().next().expect("a peer");
        assert_eq!(peer.priority, 100);
        // Multicast comes from a link-local address.
        let from_link = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        assert_eq!(from_link, !v4 && !unicast, "{address}");
    }

    // keepalived ends; Weir takes over.
    keepalived.end()?;
    wait_for_role(&agent, Role::Active)?;
    scene.wait_for_holder(0)?;
    let reason = &groups(&agent)?["v4"].transitions[0].reason;
    ensure!(reason.contains("gave up"), "{reason}");

    // Weir's operator hands over.
    let keepalived = Keepalived::start(&scene, unicast)?;
    keepalived.wait_for_backup()?;
    let output = agent.weir(&["ha", "hand-over", "v6"])?;
    ensure!(output.status.success(), "{output:?}");
    scene.wait_for_holder(1)?;
    wait_for_role(&agent, Role::Backup)?;
    stays(&capture, "lb2", &vips);

    // A split, and its end: the better one keeps the addresses.
    scene.part(1)?;
    wait_for_role(&agent, Role::Active)?;
    let healed = Instant::now();
    scene.heal(1)?;
    scene.wait_for_holder(0)?;
    let dropped = capture.last_claim("lb2", &vips).expect("it was active");
    println!(
        "unicast {unicast}: keepalived spoke last {:?} after the split healed",
        dropped.saturating_duration_since(healed)
    );
    ensure!(dropped <= healed + Duration::from_millis(INTERVAL) + SLACK);
    retry(PATIENCE, || {
        for vip in &vips {
            let told = capture.announcements("lb", *vip, healed);
            ensure!(told >= 3, "{vip} was announced {told} times");
        }
        Ok(())
    })?;
    stays(&capture, "lb", &vips);
    is_on_the_wire_as_it_should(&capture, unicast)
}

fn is_on_the_wire_as_it_should(capture: &Capture, unicast: bool) -> Result<()> {
    let said = capture.said();
    let ours = said.iter().filter(|said| said.who == "lb");
    let mut adverts = 0;
    for said in ours {
        if let What::Advert {
            source,
            destination,
            ttl,
            ..
        } = &said.what
        {
            adverts += 1;
            ensure!(
                *ttl == 255 && destination.is_multicast() != unicast,
                "{said:?}"
            );
            ensure!(source.is_ipv4() == destination.is_ipv4(), "{said:?}");
        }
    }
    ensure!(adverts > 0);
    Ok(())
}

#[test]
fn multicast() -> Result<()> {
    get_on(false)
}

#[test]
fn unicast() -> Result<()> {
    get_on(true)
}

/// keepalived takes only what RFC 5798 may be read to say. One that speaks otherwise learns it
/// from what it hears.
#[test]
fn checksums_are_learned() -> Result<()> {
    let scene = Scene::new()?;
    let start = |checksum: &str| {
        let mut group = every(INTERVAL);
        group["priority"] = json!(150);
        let mut document: Value = scene.document(&group);
        document["ha"]["groups"]["v4"]["ipv4_checksum"] = json!(checksum);
        Agent::start_at(&scene.lab, scene.balancer(0), &document)
    };
    let strict = start("rfc9568")?;
    wait_for_role(&strict, Role::Active)?;
    let keepalived = Keepalived::start(&scene, false)?;
    retry(PATIENCE, || {
        let log = keepalived.log();
        ensure!(log.contains("checksum"), "it takes RFC 9568's: {log}");
        Ok(())
    })?;
    drop(strict);
    scene.wait_for_holder(1)?;
    let learned = start("auto")?;
    wait_for_role(&learned, Role::Backup)?;
    learned.weir(&["ha", "status"])?;
    keepalived.end()?;
    wait_for_role(&learned, Role::Active)?;
    let keepalived = Keepalived::start(&scene, false)?;
    keepalived.wait_for_backup()?;
    std::thread::sleep(SLACK);
    ensure!(
        !keepalived.log().contains("checksum"),
        "{}",
        keepalived.log()
    );
    scene.wait_for_holder(0)
}
