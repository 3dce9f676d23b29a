//! wrk, which asks as fast as it is answered.

use anyhow::{Context as _, Result, ensure};
use lab::Namespace;

use crate::interrupt;

/// Has it take a connection for every request.
pub(crate) const CLOSE: [&str; 2] = ["-H", "Connection: close"];

/// What it did.
pub(crate) struct Said {
    /// Requests that were answered.
    pub(crate) requests: f64,
    /// The same, a second.
    pub(crate) rate: f64,
    /// Errors, and answers that are none.
    pub(crate) failed: u64,
}

/// A second of it, by one thread.
pub(crate) fn run(client: &Namespace, arguments: &[&str], url: &str) -> Result<Said> {
    let mut command = client.command("wrk");
    command.args(["-t1", "-d1s"]).args(arguments).arg(url);
    let output = command.output()?;
    interrupt::check()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk: {said}");
    let read = read(&said).with_context(|| format!("wrk said: {said}"))?;
    ensure!(read.requests > 0.0, "no request to {url} was answered");
    Ok(read)
}

fn read(said: &str) -> Option<Said> {
    let line = said.lines().find(|line| line.contains(" requests in "))?;
    let requests = line.trim().split(' ').next()?.parse().ok()?;
    let errors = said.lines().find(|line| line.contains("Socket errors"));
    let errors = errors.unwrap_or_default().split([' ', ',']);
    let errors: u64 = errors.filter_map(|word| word.parse::<u64>().ok()).sum();
    let refused = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let refused = refused.and_then(|count| count.parse().ok()).unwrap_or(0);
    let rate = said
        .lines()
        .find(|line| line.starts_with("Requests/sec:"))?;
    Some(Said {
        requests,
        rate: rate.split(' ').next_back()?.parse().ok()?,
        failed: errors + refused,
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn reads_what_wrk_says() {
        let said = "  1 threads and 64 connections\n  12345 requests in 1.10s, 2.00MB read\n  \
                    Socket errors: connect 1, read 20, write 0, timeout 3\n\
                    Requests/sec:  11222.72\nTransfer/sec: 1.81MB\n";
        let read_all = read(said).map(|said| (said.requests, said.rate, said.failed));
        assert_eq!(read_all, Some((12345.0, 11222.72, 24)));
        assert!(read("unable to connect").is_none());
    }
}
