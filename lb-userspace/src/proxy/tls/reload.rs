//! What is made of files, and made anew when they change.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use super::BadFile;

/// Something that is made of files.
pub trait Reload: Send + Sync {
    /// Makes it anew if a file has changed since it was last tried. Reads the files' metadata,
    /// and blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// The files are wrong: what was made of the old ones stays in use.
    fn refresh(&self) -> Result<bool, BadFile>;
}

/// A value made of files. Connections keep the one that they began with.
pub struct Reloaded<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, BadFile> + Send + Sync>,
    /// The files as they were when they were last read.
    seen: Mutex<Vec<Option<Stamp>>>,
    current: RwLock<Arc<T>>,
}

/// What changes when a file does: device, inode, size, and time in nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

impl<T> Reloaded<T> {
    /// Makes the first.
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, BadFile> + Send + Sync + 'static,
    ) -> Result<Reloaded<T>, BadFile> {
        // Before they are read: what changes meanwhile is seen the next time.
        let seen = stamps(&files);
        let first = make()?;
        Ok(Reloaded {
            files,
            make: Box::new(make),
            seen: Mutex::new(seen),
            current: RwLock::new(Arc::new(first)),
        })
    }

    /// The value of now.
    pub fn current(&self) -> Arc<T> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn refresh(&self) -> Result<bool, BadFile> {
        let now = stamps(&self.files);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now {
                return Ok(false);
            }
            // A chain and key that are half replaced fail once, and are tried when the other
            // half comes.
            *seen = now;
        }
        let new = Arc::new((self.make)()?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }
}

impl<T: Send + Sync> Reload for Reloaded<T> {
    fn refresh(&self) -> Result<bool, BadFile> {
        Reloaded::refresh(self)
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

/// Of what a link leads to, as certificates are often replaced by changing one.
fn stamp(file: &Path) -> Option<Stamp> {
    let m = fs::metadata(file).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
}
