//! Frames through a lab's links, in the kernel.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use frames::{End, Generator, Relay, Sink, Sources, Template};
use lab::{Lab, Plan};

const FRAMES: u32 = 200_000;
const SOURCES: Sources = Sources {
    addresses: 64,
    ports: 16,
};

/// From many clients to a backend's address.
fn template(lab: &Lab, ipv6: usize) -> Result<Template> {
    let source = ["10.0.0.0:1024", "[2001:db8:c::]:1024"][ipv6];
    let source = End {
        mac: frames::mac(lab.client(), "eth0")?,
        address: source.parse()?,
    };
    let destination = End {
        mac: frames::mac(lab.lb(), "client")?,
        address: SocketAddr::new(lab.backends()[0].addresses.both()[ipv6], 7),
    };
    Template::udp(source, destination)
}

fn arrived(sink: &Sink, frames: u64) -> Result<()> {
    lab::retry(Duration::from_secs(5), || {
        let swallowed = sink.swallowed()?;
        // The kernel's own come in between: router solicitations, reports of multicast groups.
        ensure!(
            (frames..frames + 50).contains(&swallowed),
            "{swallowed} of {frames} frames arrived"
        );
        Ok(())
    })
}

#[test]
fn every_frame_arrives_and_one_link_further() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let mut sink = Sink::new()?;
    for ipv6 in [0, 1] {
        let template = template(&lab, ipv6)?;
        let mut generator = Generator::new(lab.client(), "eth0", template, SOURCES)?;
        let mut door = Sink::new()?;
        door.attach(lab.lb(), "client")?;
        generator.send(FRAMES)?;
        arrived(&door, generator.sent()?)?;
        drop(door);

        lab.replace_program(&lab.backends()[0].namespace, sink.program()?)?;
        let relay = Relay::new(lab.lb(), "client", "be1")?;
        let before = sink.swallowed()?;
        let sent = generator.sent()?;
        generator.send(FRAMES)?;
        arrived(&sink, before + generator.sent()? - sent)?;
        drop(relay);
    }
    assert!(sink.attach(lab.lb(), "nowhere").is_err());
    Ok(())
}

/// The kernel forwards what is generated, so it finds addresses and checksums right, and it
/// delivers to a socket what is for it.
#[test]
fn the_kernel_takes_the_frames_for_packets() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let ethtool = ["-K", "client", "gro", "on"];
    ensure!(
        lab.lb()
            .command("ethtool")
            .args(ethtool)
            .status()?
            .success()
    );
    let backend = &lab.backends()[0];
    for ipv6 in [0, 1] {
        let address = SocketAddr::new(backend.addresses.both()[ipv6], 7);
        let socket = backend
            .namespace
            .run(|| std::net::UdpSocket::bind(address))??;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let template = template(&lab, ipv6)?;
        let mut generator = Generator::new(lab.client(), "eth0", template, SOURCES)?;
        let mut sources = std::collections::BTreeSet::new();
        let mut buffer = [0; 100];
        // As many as a socket's buffer holds, where each has a page of its own.
        for _ in 0..SOURCES.flows() / 32 {
            generator.send(32)?;
            for _ in 0..32 {
                let (_, source) = socket.recv_from(&mut buffer)?;
                sources.insert(source);
            }
        }
        assert_eq!(sources.len() as u64, SOURCES.flows());
    }
    Ok(())
}
