//! ICMP echo.

use std::net::IpAddr;

use anyhow::Result;

use crate::namespace::{Namespace, run};

/// One echo request from the namespace.
///
/// # Errors
/// No answer within two seconds.
pub fn ping(from: &Namespace, to: IpAddr) -> Result<()> {
    run(from
        .command("ping")
        .args(["-n", "-q", "-c", "1", "-W", "2"])
        .arg(to.to_string()))
}
