//! A lab leaves nothing behind, however it ends.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Plan, Process, remove_leftovers, retry, servers};
use nix::sys::signal::Signal;

/// What a lab with a server has outside of its process's memory.
#[derive(Debug)]
struct Traces {
    namespaces: Vec<PathBuf>,
    directory: PathBuf,
    server: PathBuf,
}

impl Traces {
    fn of(lab: &Lab, server: &servers::Daemon) -> Result<Self> {
        let prefix = lab.namespace_prefix();
        let traces = Self {
            namespaces: namespaces(&prefix)?,
            directory: lab.directory(),
            server: Path::new("/proc").join(server.id().context("not started")?.to_string()),
        };
        assert_eq!(traces.namespaces.len(), 3, "{traces:?}");
        assert!(traces.all().all(Path::exists), "{traces:?}");
        Ok(traces)
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        self.namespaces
            .iter()
            .chain([&self.directory, &self.server])
            .map(PathBuf::as_path)
    }

    fn are_gone(&self) -> bool {
        !self.all().any(Path::exists)
    }
}

fn namespaces(prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/run/netns")?.collect::<Result<Vec<_>, _>>()?;
    let named = entries.into_iter().filter(|entry| {
        entry
            .file_name()
            .into_string()
            .is_ok_and(|name| name.starts_with(prefix))
    });
    Ok(named.map(|entry| entry.path()).collect())
}

fn with_server() -> Result<(servers::Daemon, Lab)> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    Ok((servers::nginx(&lab.backends()[0], 80)?, lab))
}

#[test]
fn nothing_is_left_after_drop() -> Result<()> {
    let (server, lab) = with_server()?;
    let traces = Traces::of(&lab, &server)?;
    drop((server, lab));
    assert!(traces.are_gone(), "{traces:?}");
    Ok(())
}

#[test]
fn nothing_is_left_after_a_panic() -> Result<()> {
    let mut traces = None;
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let (server, lab) = with_server().unwrap();
        traces = Some(Traces::of(&lab, &server).unwrap());
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    let traces = traces.context("it panicked too early")?;
    assert!(traces.are_gone(), "{traces:?}");
    Ok(())
}

/// The process with the lab is this test, started once more.
#[test]
fn a_killed_process_takes_its_servers_along_and_leaves_the_rest_to_others() -> Result<()> {
    const TEST: &str = "a_killed_process_takes_its_servers_along_and_leaves_the_rest_to_others";
    const MARK: &str = "WEIR_LAB_TEST_HOLDS";
    if env::var_os(MARK).is_some() {
        let (server, lab) = with_server()?;
        println!(
            "\nheld {} {}",
            server.id().context("no id")?,
            lab.namespace_prefix()
        );
        loop {
            std::thread::park();
        }
    }
    let mut command = Command::new(env::current_exe()?);
    command
        .args([TEST, "--exact", "--nocapture"])
        .env(MARK, "1")
        .stdout(Stdio::piped());
    let mut holder = Process::spawn(command)?;
    let mut lines = BufReader::new(holder.take_stdout().context("no output")?).lines();
    let line = lines
        .find_map(|line| line.ok()?.strip_prefix("held ").map(str::to_owned))
        .context("it holds no lab")?;
    let (server, prefix) = line.split_once(' ').context(line.clone())?;
    let server = Path::new("/proc").join(server);
    ensure!(server.exists(), "{server:?}");
    ensure!(namespaces(prefix)?.len() == 3);
    // Of a living process, nothing is taken.
    remove_leftovers()?;
    ensure!(namespaces(prefix)?.len() == 3);

    holder.signal(Signal::SIGKILL)?;
    retry(Duration::from_secs(10), || {
        ensure!(!holder.is_running() && !server.exists());
        Ok(())
    })?;
    remove_leftovers()?;
    ensure!(namespaces(prefix)?.is_empty());
    ensure!(!env::temp_dir().join(prefix.trim_end_matches('-')).exists());
    Ok(())
}
