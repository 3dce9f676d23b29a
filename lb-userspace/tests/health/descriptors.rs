//! Checks while this process is out of file descriptors.

use std::{
    env,
    fs::File,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use lb_userspace::health::{Health, Kind};
use nix::errno::Errno;
use tokio::{net::TcpListener, runtime::Builder, time::sleep};

use crate::support::{Checker, target};

/// Set in the process that may run out of descriptors.
const ALONE: &str = "WEIR_TEST_ALONE";

#[test]
fn a_check_that_cannot_be_made_decides_nothing() {
    if env::var_os(ALONE).is_some() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(run_out());
    }
    // In a process of its own: the other tests need descriptors.
    let output = Command::new("sh")
        .args(["-c", r#"ulimit -n 64 && exec "$0" "$@""#])
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "descriptors::a_check_that_cannot_be_made_decides_nothing",
        ])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

async fn run_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = target(listener.local_addr().unwrap(), Kind::Tcp);
    Arc::make_mut(&mut target.check).interval = Duration::from_millis(1);
    let mut checker = Checker::start(vec![target]);
    assert_eq!(checker.verdict().await.0, Health::Healthy);

    let mut files = vec![];
    // More than once: a check that is under way gives its descriptor back.
    for _ in 0..10 {
        let error = loop {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32));
        sleep(Duration::from_millis(10)).await;
    }
    assert!(checker.changes.try_recv().is_err());

    drop(files);
    drop(listener);
    assert_eq!(
        checker.verdict().await,
        (Health::Unhealthy, "connect: connection refused".into())
    );
}
