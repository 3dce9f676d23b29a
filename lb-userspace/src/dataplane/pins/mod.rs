//! What outlives the agent: links and maps, pinned in a directory of a BPF file system.
//!
//! | pin | what it is |
//! |---|---|
//! | `native-7`, `generic-7` | the link to the interface of index 7, and how the program runs there |
//! | `program-123/` | the maps of the program of id 123, named as the kernel has them, and `STAMP` |
//!
//! A link names its program and the program has its maps, so that wherever an agent dies, what
//! is in force is known: a directory whose program no link runs is a leftover. Who holds the
//! directory's lock is alive.

mod begin;
mod bpffs;
mod copy;
mod inherited;
mod leftover;
mod stamp;

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use aya::{
    maps::MapData,
    programs::{
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};

use super::batch;

pub use self::leftover::{Leftover, detach};
pub(crate) use self::{
    begin::begin,
    inherited::{Inherited, InheritedRing, mark},
    stamp::Stamp,
};

/// Characters of a map's name that the kernel keeps.
const NAME: usize = 15;

/// The directory, which no other agent has while this has the lock.
pub(crate) struct Pins {
    directory: PathBuf,
    /// Links that were made for this agent: they stay though somebody removes the pin.
    fresh: Vec<(PathBuf, PinnedLink)>,
    /// None while another agent may take the directory.
    lock: Option<File>,
}

/// A pinned link.
struct Found {
    path: PathBuf,
    ifindex: u32,
    mode: String,
    program: u32,
}

impl Pins {
    /// Takes the directory, and makes it where it is missing.
    ///
    /// # Errors
    ///
    /// Another agent has it; or it is not in a BPF file system and none can be mounted; or the
    /// kernel's.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        bpffs::ensure(directory)?;
        loop {
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(directory)?;
            if let Some(lock) = lock(directory)? {
                return Ok(Self {
                    directory: directory.to_owned(),
                    fresh: Vec::new(),
                    lock: Some(lock),
                });
            }
        }
    }

    /// Lets another agent take the directory, and what is pinned there with it.
    pub(crate) fn unlock(&mut self) {
        self.lock = None;
    }

    /// Takes the directory back.
    ///
    /// # Errors
    ///
    /// Another agent has it, or the kernel's.
    pub(crate) fn lock_again(&mut self) -> anyhow::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        let lock = lock(&self.directory)?.context("the directory is gone")?;
        self.lock = Some(lock);
        Ok(())
    }

    /// Whether each of these interfaces runs this program, by a link that is pinned.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn runs(
        &self,
        program: u32,
        mut interfaces: impl Iterator<Item = u32>,
    ) -> anyhow::Result<bool> {
        let links = self.links()?;
        let is = |link: &Found, ifindex| link.ifindex == ifindex && link.program == program;
        Ok(interfaces.all(|ifindex| links.iter().any(|link| is(link, ifindex))))
    }

    /// The maps of the program that an earlier agent has left in force.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn in_force(&self) -> anyhow::Result<Option<PathBuf>> {
        // One that died between two of its links had made everything ready: the newer holds.
        let newest = self.links()?.into_iter().map(|link| link.program).max();
        Ok(newest.map(|program| self.maps_of(program)))
    }

    fn maps_of(&self, program: u32) -> PathBuf {
        self.directory.join(format!("program-{program}"))
    }

    fn link_path(&self, ifindex: u32, mode: &str) -> PathBuf {
        self.directory.join(format!("{mode}-{ifindex}"))
    }

    /// All pinned links. What is pinned here that is none is left alone.
    fn links(&self) -> anyhow::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some((mode, ifindex)) = name.split_once('-') else {
                continue;
            };
            let (true, Ok(ifindex)) = (["native", "generic"].contains(&mode), ifindex.parse())
            else {
                continue;
            };
            let mode = mode.to_owned();
            let link = PinnedLink::from_pin(&path);
            let link = FdLink::from(link.with_context(|| path.display().to_string())?);
            found.push(Found {
                program: link.info()?.program_id(),
                ifindex,
                mode,
                path,
            });
        }
        Ok(found)
    }

    /// The link to an interface in a mode that an earlier agent has left.
    pub(crate) fn link(&self, ifindex: u32, mode: &str) -> Option<XdpLink> {
        let link = PinnedLink::from_pin(self.link_path(ifindex, mode)).ok()?;
        XdpLink::try_from(FdLink::from(link)).ok()
    }

    /// Ends the link to an interface in a mode. Whether there was one.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn unlink(&self, ifindex: u32, mode: &str) -> io::Result<bool> {
        match end(&self.link_path(ifindex, mode)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Has a link outlive this agent.
    ///
    /// # Errors
    ///
    /// The kernel's; or that it is too old (before Linux 5.9) for links.
    pub(crate) fn pin_link(
        &mut self,
        link: XdpLink,
        ifindex: u32,
        mode: &str,
    ) -> anyhow::Result<()> {
        let link = FdLink::try_from(link).context(
            "this kernel's XDP has no links that last (Linux 5.9 has): set `agent.pin` to \"\"",
        )?;
        let path = self.link_path(ifindex, mode);
        let link = link.pin(&path)?;
        self.fresh.push((path, link));
        Ok(())
    }

    /// Detaches what an earlier agent has left in another network namespace, where an interface's
    /// index means another one. That one's namespace may be gone, with its interfaces.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn leave_other_namespaces(&self, own: &Stamp) -> anyhow::Result<()> {
        for link in self.links()? {
            let stamp = Stamp::read(&self.maps_of(link.program));
            if stamp.is_ok_and(|stamp| stamp.namespace != own.namespace) {
                end(&link.path)?;
            }
        }
        Ok(())
    }

    /// Has these maps of a program outlive this agent.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn pin_maps(
        &self,
        program: u32,
        maps: BTreeSet<u32>,
        stamp: &Stamp,
    ) -> anyhow::Result<()> {
        let directory = self.maps_of(program);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(&directory)?,
        }
        for id in maps {
            let map = MapData::from_id(id)?;
            let info = map.info()?;
            let name = info.name_as_str().unwrap_or_default();
            // The program's constants, which have no name that may be a file's.
            if !name.is_empty() && !name.contains('.') {
                map.pin(directory.join(name))?;
            }
        }
        stamp.pin(&directory)
    }

    /// Takes back what was pinned for a program that was not attached after all.
    pub(crate) fn take_back(&mut self) {
        for (path, _) in self.fresh.drain(..) {
            complain_of(end(&path).map_err(Into::into));
        }
        complain_of(self.remove_unused(&BTreeSet::new(), false));
    }

    /// Removes links to other interfaces than these, which detaches them, and all maps that no
    /// link needs.
    pub(crate) fn keep_only(&self, interfaces: &BTreeSet<u32>) {
        complain_of(self.remove_unused(interfaces, true));
    }

    fn remove_unused(&self, interfaces: &BTreeSet<u32>, links_too: bool) -> anyhow::Result<()> {
        let mut used = BTreeSet::new();
        for link in self.links()? {
            match links_too && !interfaces.contains(&link.ifindex) {
                true => end(&link.path)?,
                false => _ = used.insert(self.maps_of(link.program)),
            }
        }
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("program-") && !used.contains(&path) {
                fs::remove_dir_all(&path)?;
            }
        }
        Ok(())
    }

    /// Removes everything, and detaches all links.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        self.remove_unused(&BTreeSet::new(), true)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        // Which the kernel refuses where something is left in it.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// The directory's lock; `None` where it was removed meanwhile.
fn lock(directory: &Path) -> anyhow::Result<Option<File>> {
    let file = File::open(directory)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!("an agent that runs has it: stop that one, or give this one another `agent.pin`")
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let there = fs::metadata(directory).ok();
    let is_same =
        there.is_some_and(|there| file.metadata().is_ok_and(|it| it.ino() == there.ino()));
    Ok(is_same.then_some(file))
}

/// Detaches a pinned link, and removes the pin.
fn end(link: &Path) -> io::Result<()> {
    match batch::detach_link(link) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error),
        // One whose interface is gone has nothing to be detached from.
        _ => fs::remove_file(link),
    }
}

/// What the kernel calls a map.
fn kernel_name(map: &str) -> &str {
    &map[..map.len().min(NAME)]
}

fn complain_of(result: anyhow::Result<()>) {
    if let Err(error) = result {
        tracing::warn!("removing pins: {error:#}");
    }
}
