//! A database server.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::Signal,
    unistd::{User, setgid, setgroups, setuid},
};

use super::daemon::{Daemon, Recipe};
use crate::{
    Backend,
    namespace::{command, run},
};

/// PostgreSQL on all the backend's addresses, with an empty database. Everyone may log in, for
/// instance as `postgres`; `SHOW cluster_name` answers with the backend's name. Files and shared
/// memory are written without care for a crash of the machine.
///
/// # Errors
/// It is not installed, its user `postgres` is missing, or it cannot be started.
pub fn postgres(backend: &Backend, port: u16) -> Result<Daemon> {
    // The server refuses to run as root.
    let user = User::from_name("postgres")?.context("there is no user `postgres`")?;
    let programs = programs()?;
    let directory = backend.directory.join(format!("postgres-{port}"));
    fs::create_dir(&directory)
        .and_then(|()| chown(&directory, Some(user.uid.as_raw()), Some(user.gid.as_raw())))
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let data = directory.join("data");
    run(command(programs.join("initdb"))
        .args(["--auth=trust", "--username=postgres", "--no-sync"])
        .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
        .arg(&data)
        .current_dir(&directory)
        .uid(user.uid.as_raw())
        .gid(user.gid.as_raw()))?;
    fs::write(data.join("pg_hba.conf"), "host all all all trust\n")?;

    let log = directory.join("log");
    let (namespace, client) = (backend.namespace.clone(), backend.namespace.clone());
    let (name, address) = (backend.name.clone(), backend.addresses.v4);
    let (server, probe) = (programs.join("postgres"), programs.join("pg_isready"));
    Daemon::started(Recipe {
        host: backend.namespace.clone(),
        port,
        command: Box::new(move || {
            let mut command = namespace.command(&server);
            command.arg("-D").arg(&data).current_dir(&directory);
            for setting in [
                "listen_addresses=*",
                &format!("port={port}"),
                &format!("cluster_name={name}"),
                "unix_socket_directories=",
                "fsync=off",
            ] {
                command.args(["-c", setting]);
            }
            let (uid, gid) = (user.uid, user.gid);
            // Not by `Command::uid`, which comes before the namespace is entered.
            // SAFETY: between fork and exec, the closure makes system calls only.
            unsafe {
                command.pre_exec(move || {
                    setgroups(&[])
                        .and_then(|()| setgid(gid))
                        .and_then(|()| setuid(uid))
                        .map_err(io::Error::from)
                });
            }
            command
        }),
        ready: Box::new(move || {
            run(client
                .command(&probe)
                .args(["-h", &address.to_string(), "-p", &port.to_string()]))
        }),
        // The fast way; SIGTERM would wait for the clients to leave.
        end: Signal::SIGINT,
        log,
    })
}

/// The directory of the newest server's programs, which Debian keeps out of PATH.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    versions
        .filter_map(|version| Some(version.ok()?.path().join("bin")))
        .filter(|programs| programs.join("postgres").exists())
        .max()
        .context("PostgreSQL's server is not installed")
}
