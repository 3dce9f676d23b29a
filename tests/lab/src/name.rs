//! What a lab's namespaces and files are called, and removing them by their names.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

use crate::namespace;

const PREFIX: &str = "weir-";

/// Where the lab's balancers may pin: a BPF file system, if they mount one.
const PINS: &str = "/sys/fs/bpf";

/// A lab's name. What is called by it is removed when this is dropped.
pub(crate) struct Name {
    id: String,
}

impl Name {
    /// A name that no other lab has: this process's id and a counter.
    pub(crate) fn unique() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::new(&format!("{}-{next}", process::id()))
    }

    /// Takes a name, and removes what an earlier lab may have left under it.
    pub(crate) fn new(id: &str) -> Result<Self> {
        remove(id)?;
        let name = Self { id: id.to_owned() };
        fs::create_dir(name.directory())
            .with_context(|| format!("cannot make {}", name.directory().display()))?;
        Ok(name)
    }

    /// What the namespace of `role` is called.
    pub(crate) fn namespace(&self, role: &str) -> String {
        format!("{PREFIX}{}-{role}", self.id)
    }

    /// Where the lab's servers have their files.
    pub(crate) fn directory(&self) -> PathBuf {
        directory(&self.id)
    }

    /// Where the lab's balancers may pin what outlives them.
    pub(crate) fn pins(&self) -> PathBuf {
        pins(&self.id)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.id) {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Removes the namespaces, pins and files of the lab called `id`; nothing if there are none.
///
/// # Errors
/// What could not be listed or removed.
pub fn remove(id: &str) -> Result<()> {
    let start = format!("{PREFIX}{id}-");
    for namespace in named(Path::new(namespace::DIRECTORY))? {
        if namespace.starts_with(&start) {
            namespace::remove(&namespace)?;
        }
    }
    remove_directory(&pins(id))?;
    remove_directory(&directory(id))
}

/// Removes the namespaces, pins and files of labs whose process was killed before it could.
///
/// # Errors
/// What could not be listed or removed.
pub fn remove_leftovers() -> Result<()> {
    for namespace in named(Path::new(namespace::DIRECTORY))? {
        if is_leftover(&namespace) {
            namespace::remove(&namespace)?;
        }
    }
    for parent in [env::temp_dir(), PathBuf::from(PINS)] {
        for directory in named(&parent)? {
            if is_leftover(&directory) {
                remove_directory(&parent.join(directory))?;
            }
        }
    }
    Ok(())
}

fn pins(id: &str) -> PathBuf {
    Path::new(PINS).join(format!("{PREFIX}{id}"))
}

fn directory(id: &str) -> PathBuf {
    env::temp_dir().join(format!("{PREFIX}{id}"))
}

/// Whether this is the name of something that a process made that is no more.
fn is_leftover(name: &str) -> bool {
    let pid = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next());
    pid.and_then(|pid| pid.parse::<u32>().ok())
        .is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

/// The names in a directory that are a lab's.
fn named(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(PREFIX))
        .collect())
}

fn remove_directory(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::is_leftover;

    #[test]
    fn only_a_dead_process_leaves_leftovers() {
        // No pid is above 2^22.
        assert!(is_leftover("weir-4194305-0-client"));
        assert!(is_leftover("weir-4194305-0"));
        assert!(!is_leftover(&format!("weir-{}-0-lb", std::process::id())));
        assert!(!is_leftover("weir-demo-client"));
        assert!(!is_leftover("other-4194305-0"));
    }
}
