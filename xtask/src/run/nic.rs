//! The agent on NICs of this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::Process;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::sleep;

use super::{agent, signals::Signals};

/// Runs the agent until it ends, or a signal comes, which is passed on to it.
pub(super) async fn run(weir: &Path, config: &Path, interfaces: &[String]) -> Result<()> {
    let mut signals = Signals::catch()?;
    let copy = (!interfaces.is_empty())
        .then(|| Copy::with(config, interfaces))
        .transpose()?;
    let config = copy.as_ref().map_or(config, |copy| &copy.file);
    // It logs to this terminal how it is attached.
    let mut agent = Process::spawn(agent::configured(Command::new(weir), config))?;
    tokio::select! {
        biased;
        () = signals.received() => {}
        () = ended(&mut agent) => {}
    }
    let status = agent.stop()?;
    ensure!(status.success(), "the agent has ended: {status}");
    Ok(())
}

async fn ended(process: &mut Process) {
    while process.is_running() {
        sleep(Duration::from_millis(100)).await;
    }
}

/// A configuration with other interfaces. The file is removed when this is dropped.
struct Copy {
    file: PathBuf,
    _directory: TempDir,
}

impl Copy {
    fn with(config: &Path, interfaces: &[String]) -> Result<Self> {
        let text = fs::read_to_string(config)
            .with_context(|| format!("cannot read {}", config.display()))?;
        // As the agent tells them apart.
        let is_json = config
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let copied = match is_json {
            true => in_json(&text, interfaces),
            false => in_toml(&text, interfaces),
        };
        let copied = copied.with_context(|| config.display().to_string())?;
        let directory = tempfile::Builder::new().prefix("weir-run-").tempdir()?;
        // The agent's complaints name the file.
        let name = config.file_name().context("--config is no file")?;
        let file = directory.path().join(name);
        fs::write(&file, copied)?;
        Ok(Self {
            file,
            _directory: directory,
        })
    }
}

fn in_json(text: &str, interfaces: &[String]) -> Result<String> {
    let mut document: serde_json::Map<_, _> = serde_json::from_str(text)?;
    let agent = document.entry("agent").or_insert_with(|| json!({}));
    let agent = agent.as_object_mut().context("`agent` is not a table")?;
    agent.insert("interfaces".to_owned(), json!(interfaces));
    Ok(serde_json::to_string(&document)?)
}

fn in_toml(text: &str, interfaces: &[String]) -> Result<String> {
    let mut document: toml::Table = text.parse()?;
    let agent = document
        .entry("agent")
        .or_insert_with(|| toml::Table::new().into());
    let agent = agent.as_table_mut().context("`agent` is not a table")?;
    agent.insert("interfaces".to_owned(), interfaces.to_vec().into());
    Ok(toml::to_string(&document)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_replaced_and_the_rest_stays() -> Result<()> {
        let names = ["eth0".to_owned(), "eth1".to_owned()];
        let expected = json!({
            "agent": { "interfaces": ["eth0", "eth1"], "admin": { "listen": "127.0.0.1:9000" } },
            "pools": { "web": {} },
        });
        let json = r#"{ "pools": { "web": {} }, "agent": { "interfaces": [{ "name": "lan" }],
                        "admin": { "listen": "127.0.0.1:9000" } } }"#;
        let copy: serde_json::Value = serde_json::from_str(&in_json(json, &names)?)?;
        assert_eq!(copy, expected);
        let toml = "agent.interfaces = [\"lan\"]\nagent.admin.listen = \"127.0.0.1:9000\"\n\
                    [pools.web]\n";
        let copy: serde_json::Value = toml::from_str(&in_toml(toml, &names)?)?;
        assert_eq!(copy, expected);
        Ok(())
    }

    #[test]
    fn the_agents_table_may_be_missing() -> Result<()> {
        let names = ["eth0".to_owned()];
        assert_eq!(
            in_json("{}", &names)?,
            r#"{"agent":{"interfaces":["eth0"]}}"#
        );
        assert_eq!(in_toml("", &names)?, "[agent]\ninterfaces = [\"eth0\"]\n");
        assert!(in_toml("agent = 1", &names).is_err());
        Ok(())
    }
}
