//! Reading the configuration file.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use super::{Config, ConfigError, Problem, Problems, from_json, from_toml};

impl Config {
    /// Reads and checks a file: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    ///
    /// The file cannot be read; or it is not what it should be: the first fault of syntax or
    /// type, or everything that [`Config::check`] finds.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        read(path)?
            .map_err(|problem| Problems(vec![problem]))
            .and_then(|config: Config| config.check().map(|()| config))
            .map_err(|problems| ConfigError::Invalid {
                file: path.to_owned(),
                problems,
            })
    }
}

/// Reads a file, in JSON if its name ends in `.json`, else in TOML; checks no rules.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Result<T, Problem>, ConfigError> {
    let text = bytes(path)?;
    let json = (path.extension()).is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    Ok(match json {
        true => from_json(&text, ""),
        false => from_toml(&text),
    })
}

pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|why| ConfigError::Unreadable {
        file: path.to_owned(),
        why,
    })
}
