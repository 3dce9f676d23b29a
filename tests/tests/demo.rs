//! `cargo xtask run`: its demo works, and leaves nothing behind.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Lines},
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Process, retry};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir_tests::{agent::binary, executable::executable};

/// How long a demo may take to end, or the kernel to forget its processes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines, one a second, in which something must have happened.
const LINES: usize = 60;

#[test]
fn it_shows_traffic_on_all_backends_and_ends_by_itself() -> Result<()> {
    let mut demo = Demo::start(&["--for", "5"])?;
    let guide = demo.line_with("Ctrl-C ends")?;
    assert!(guide.contains("XDP          native, on client, be1, be2, be3"));
    assert_eq!(demo.processes()?.len(), 7, "six nginx and the agent");
    let shown = demo.line_with("summary: ")?;
    assert!(shown.contains(" requests/s, "), "{shown}");

    let summary = shown.lines().last().unwrap_or_default();
    let numbers: Vec<u64> = summary
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    let &[requests, failed, retried, 1, be1, 2, be2, 3, be3] = &*numbers else {
        panic!("{summary}");
    };
    // A tenth of what it makes here.
    assert!(requests > 900, "{summary}");
    assert_eq!((failed, retried), (0, 0), "{summary}");
    for share in [be1, be2, be3] {
        assert!((15..=60).contains(&share), "{summary}");
    }
    demo.has_ended()
}

#[test]
fn a_killed_server_leaves_and_comes_back() -> Result<()> {
    let mut demo = Demo::start(&[])?;
    let guide = demo.line_with("  kill ")?;
    let id = guide.rsplit(' ').next().context("no process")?;
    let healthy = demo.line_with(" requests/s, ")?;
    assert!(!healthy.contains("not healthy"), "{healthy}");

    kill(Pid::from_raw(id.trim().parse()?), Signal::SIGTERM)?;
    demo.line_with("not healthy in nat-v4 and nat-v6")?;
    let back = demo.line_where(|line| !line.contains("not healthy"))?;
    assert!(back.contains("; be1 "), "{back}");

    demo.process.signal(Signal::SIGINT)?;
    let summary = demo.line_with("summary: ")?;
    assert!(summary.contains(" 0 failed"), "{summary}");
    demo.has_ended()
}

#[test]
fn it_fails_when_the_agent_has_ended() -> Result<()> {
    let mut demo = Demo::start(&[])?;
    demo.line_with(" requests/s, ")?;
    let agents = demo.processes()?.into_iter();
    let agents: Vec<_> = agents
        .filter(|(_, line)| line.contains("weir.json"))
        .collect();
    let [(agent, _)] = &*agents else {
        panic!("{agents:?}");
    };
    kill(Pid::from_raw(*agent), Signal::SIGKILL)?;
    let left = demo.left_when_ended(false)?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Ctrl-C, which goes to the whole process group, while the network is being made.
#[test]
fn it_can_be_ended_before_it_has_begun() -> Result<()> {
    for namespaces in [1, 3, 5] {
        let demo = Demo::start(&[])?;
        retry(PATIENCE, || {
            let made = demo.namespaces()?;
            ensure!(made.len() >= namespaces, "{made:?}");
            Ok(())
        })?;
        let group = Pid::from_raw(-i32::try_from(demo.process.id())?);
        kill(group, Signal::SIGINT)?;
        demo.has_ended()?;
    }
    Ok(())
}

#[test]
fn an_interface_needs_a_configuration() -> Result<()> {
    let output = Command::new(executable("xtask"))
        .args(["run", "--iface", "eth0"])
        .output()?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("--config FILE"), "{said}");
    Ok(())
}

/// A demo that runs, and what it prints.
struct Demo {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
    /// The lab's own.
    directory: PathBuf,
}

impl Demo {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(executable("xtask"));
        command
            .arg("run")
            .arg("--agent")
            .arg(binary())
            .args(arguments)
            .stdout(Stdio::piped());
        let mut process = Process::spawn(command)?;
        let stdout = process.take_stdout().context("no output")?;
        Ok(Self {
            directory: env::temp_dir().join(format!("weir-{}-0", process.id())),
            process,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// What it prints up to the line that contains this.
    fn line_with(&mut self, wanted: &str) -> Result<String> {
        self.line_where(|line| line.contains(wanted))
    }

    fn line_where(&mut self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut printed = String::new();
        for line in self.lines.by_ref().take(LINES) {
            let line = line?;
            printed += &line;
            if wanted(&line) {
                return Ok(printed);
            }
            printed.push('\n');
        }
        anyhow::bail!("it did not print what was waited for, but:\n{printed}")
    }

    /// The processes that have its directory in their command line.
    fn processes(&self) -> Result<Vec<(i32, String)>> {
        let directory = format!("{}/", self.directory.display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let id = entry.file_name().into_string().ok();
            // One that has ended meanwhile is none.
            if let Some(id) = id.and_then(|id| id.parse().ok())
                && let Ok(line) = fs::read(entry.path().join("cmdline"))
                && let line = String::from_utf8_lossy(&line)
                && line.contains(&directory)
            {
                found.push((id, line.into_owned()));
            }
        }
        Ok(found)
    }

    /// It has ended well, and nothing of it is left.
    fn has_ended(mut self) -> Result<()> {
        let left = self.left_when_ended(true)?;
        assert!(left.is_empty(), "{left:?}");
        Ok(())
    }

    /// Waits for its end, and says what is left of it.
    fn left_when_ended(&mut self, well: bool) -> Result<Vec<String>> {
        retry(PATIENCE, || {
            ensure!(!self.process.is_running(), "it does not end");
            Ok(())
        })?;
        assert_eq!(self.process.stop()?.success(), well);
        let mut left: Vec<_> = self
            .processes()?
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        if self.directory.exists() {
            left.push(self.directory.display().to_string());
        }
        left.extend(self.namespaces()?);
        Ok(left)
    }

    fn namespaces(&self) -> Result<Vec<String>> {
        let prefix = format!("weir-{}-", self.process.id());
        let names = fs::read_dir(Path::new("/run/netns"))?;
        let names = names.filter_map(|name| {
            let name = name.ok()?.file_name().into_string().ok()?;
            name.starts_with(&prefix).then_some(name)
        });
        Ok(names.collect())
    }
}
