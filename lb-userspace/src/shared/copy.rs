//! The copy on disk of the last document that was good.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::config::Shared;

/// A document, and what it was when it was taken.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Copy {
    /// The key that it was under.
    pub(super) key: String,
    /// etcd's revision of the key's last change.
    pub(super) revision: i64,
    /// The document.
    pub(super) document: Shared,
}

impl Copy {
    /// Reads it; nothing where there is none.
    pub(super) fn read(file: &Path, key: &str) -> anyhow::Result<Option<Self>> {
        let text = match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("reading {}", file.display()))?,
        };
        let copy: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no copy of a shared document", file.display()))?;
        ensure!(
            copy.key == key,
            "{} is a copy of what is under {}, not under {key}",
            file.display(),
            copy.key
        );
        Ok(Some(copy))
    }

    /// Puts it in the place of the file's old content, all or nothing, and for its owner alone:
    /// documents may hold secrets.
    pub(super) fn write(&self, file: &Path) -> io::Result<()> {
        let directory = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let new = file.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut out = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        out.sync_all()?;
        fs::rename(&new, file)?;
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("deep/copy.json");
        assert_eq!(Copy::read(&file, "/k").unwrap(), None);
        let document = Shared::parse(b"[pools.p.backends]\nb = { address = \"10.0.0.1:80\" }");
        let copy = Copy {
            key: "/k".into(),
            revision: 7,
            document: document.unwrap(),
        };
        copy.write(&file).unwrap();
        copy.write(&file).unwrap();
        assert_eq!(Copy::read(&file, "/k").unwrap(), Some(copy));
        let left: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1);
        let other = Copy::read(&file, "/other").unwrap_err().to_string();
        assert!(other.contains("under /k, not under /other"), "{other}");
        fs::write(&file, "{").unwrap();
        let broken = Copy::read(&file, "/k").unwrap_err().to_string();
        assert!(broken.contains("no copy of a shared document"), "{broken}");
    }
}
