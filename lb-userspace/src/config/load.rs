//! Reading the configuration file.

use std::{fs, path::Path};

use super::{Config, ConfigError, Problems, from_json, from_toml};

impl Config {
    /// Reads and checks a file: JSON if its name ends in `.json`, else TOML.
    ///
    /// # Errors
    ///
    /// The file cannot be read; or it is not what it should be: the first fault of syntax or
    /// type, or everything that [`Config::check`] finds.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = fs::read(path).map_err(|why| ConfigError::Unreadable {
            file: path.to_owned(),
            why,
        })?;
        let json =
            (path.extension()).is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let parsed = match json {
            true => from_json::<Config>(&text, ""),
            false => from_toml(&text),
        };
        parsed
            .map_err(|problem| Problems(vec![problem]))
            .and_then(|config: Config| config.check().map(|()| config))
            .map_err(|problems| ConfigError::Invalid {
                file: path.to_owned(),
                problems,
            })
    }
}
