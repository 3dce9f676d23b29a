//! The key that all nodes have.

use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use super::seal::SharedKey;

/// Reads it from a file of 64 hex digits, which may end in a line break.
///
/// # Errors
///
/// It cannot be read, or holds something else.
pub fn read(file: &Path) -> anyhow::Result<SharedKey> {
    let shown = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("ha.sync.key_file: {shown}"))?;
    let digits = text.trim_end();
    ensure!(
        digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "ha.sync.key_file: {shown}: expected 64 hex digits (`openssl rand -hex 32`), not {} \
         characters of another kind",
        digits.chars().count()
    );
    let mut key = SharedKey::default();
    for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair)?;
        *byte = u8::from_str_radix(pair, 16)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hex_digits() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("key");
        fs::write(&file, format!("{}\n", "0f".repeat(32)))?;
        assert_eq!(read(&file)?, [15; 32]);
        for wrong in [
            "",
            "0f",
            &"0g".repeat(32),
            &"0f".repeat(33),
            &"+1".repeat(32),
        ] {
            fs::write(&file, wrong)?;
            let error = read(&file).expect_err(wrong).to_string();
            assert!(
                error.contains("ha.sync.key_file") && error.contains("64"),
                "{error}"
            );
        }
        Ok(())
    }
}
