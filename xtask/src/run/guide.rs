//! What the demo says at its start.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;
use lab::Lab;

use super::{
    front::{FRONTS, LISTEN},
    web::{Server, Web},
    weir::Weir,
};

/// Says what there is, how XDP runs, and what one could try.
pub(super) async fn print(agent: &Path, lab: &Lab, weir: &Weir, webs: &[Web]) -> Result<()> {
    let modes = modes(weir).await?;
    let agent = agent.canonicalize()?;
    let (agent, socket) = (agent.display(), weir.socket().display());
    let (log, namespace) = (weir.log().display(), lab.lb().name());
    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "Weir balances a client's load on three nginx, all in network namespaces.\n"
    )?;
    for front in &FRONTS {
        let (name, target) = (front.name, front.target(lab));
        writeln!(out, "  {name:12} http://{target}/")?;
    }
    for (mode, interfaces) in modes {
        writeln!(out, "  {:12} {mode}, on {}", "XDP", interfaces.join(", "))?;
    }
    writeln!(
        out,
        "  {:12} {log}

Look at it:
  {agent} --admin {socket} status
  curl --unix-socket {socket} http://weir/v1/status
  ip netns exec {namespace} curl http://{LISTEN}/v1/status",
        "agent's log"
    )?;
    if let Some((web, Server::Runs(id))) = webs.first().map(|web| (web, web.server())) {
        let (backend, port, away) = (web.backend(), web.port(), Web::AWAY.as_secs());
        writeln!(
            out,
            "
Drain {backend} in nat-v4, so that it gets no new connections, and then let it back:
  {agent} --admin {socket} backend drain nat-v4/{backend}
  {agent} --admin {socket} backend undrain nat-v4/{backend}

Kill the nginx on port {port} of {backend}, and watch it leave; it is started again {away} s later, and
comes back. For about a second, until two health checks have failed, it refuses connections:
the client makes those requests again, and none fails.
  kill {id}"
        )?;
    }
    writeln!(out, "\nCtrl-C ends the demo and removes everything.\n")?;
    Ok(out.flush()?)
}

/// The interfaces by how XDP runs on them.
async fn modes(weir: &Weir) -> Result<BTreeMap<String, Vec<String>>> {
    let mut modes = BTreeMap::<_, Vec<_>>::new();
    for attached in weir.admin().status().await?.interfaces {
        let interfaces = modes.entry(attached.mode).or_default();
        interfaces.push(attached.interface);
    }
    Ok(modes)
}
