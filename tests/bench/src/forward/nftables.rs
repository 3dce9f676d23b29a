//! What users without Weir have: nftables' DNAT by a hash.

use std::{io::Write as _, net::IpAddr, net::SocketAddr, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use lab::Namespace;

/// Balances a VIP's packets by their source's hash, as the kernel's connection tracking
/// remembers; `masquerade`: so that backends answer to the balancer.
pub(crate) fn balance(
    balancer: &Namespace,
    protocol: &str,
    vip: SocketAddr,
    backends: impl ExactSizeIterator<Item = IpAddr>,
    masquerade: bool,
) -> Result<()> {
    let count = backends.len();
    let backends = (0..).zip(backends);
    let map: Vec<_> = backends
        .map(|(number, backend)| format!("{number} : {backend}"))
        .collect();
    let source_nat = if masquerade {
        "chain back { type nat hook postrouting priority srcnat; policy accept; masquerade; }"
    } else {
        ""
    };
    let (ip, port, map) = (vip.ip(), vip.port(), map.join(", "));
    let rules = format!(
        "table ip balance {{
            chain in {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr {ip} {protocol} dport {port} \
                    dnat to jhash ip saddr . {protocol} sport mod {count} map {{ {map} }};
            }}
            {source_nat}
        }}\n"
    );
    let mut child = balancer
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run `nft`")?;
    child
        .stdin
        .take()
        .context("no input")?
        .write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "nft: {}\n{rules}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Forgets all connections, so that the table does not fill.
pub(crate) fn forget(balancer: &Namespace) -> Result<()> {
    crate::pinned::run(balancer, "conntrack -F")
}
