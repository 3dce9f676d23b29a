//! Programs at the balancer's place, each on the CPUs that it is given.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use anyhow::Result;
use lab::{Lab, Namespace, Process};

/// Starts what `program` adds to the command; `NAME.log` in the lab's directory gets what it says.
pub(crate) fn start(
    lab: &Lab,
    name: &str,
    cpus: &[usize],
    program: impl FnOnce(&mut Command),
) -> Result<Process> {
    let log = File::create(lab.directory().join(format!("{name}.log")))?;
    let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
    let mut command = lab.lb().command("taskset");
    command.args(["-c", &cpus.join(",")]);
    program(&mut command);
    command.stdin(Stdio::null());
    command.stdout(log.try_clone()?).stderr(log);
    Process::spawn(command)
}

/// Runs a command, given as words, in a namespace, to its end.
pub(crate) fn run(namespace: &Namespace, command: &str) -> Result<()> {
    let mut words = command.split(' ');
    let mut child = namespace.command(words.next().unwrap_or_default());
    lab::run(child.args(words))
}
