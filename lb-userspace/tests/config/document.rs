//! What is read: every field, both formats, the files in the tree.

use std::{fs, path::PathBuf, time::Duration};

use lb_common::hash::HashKey;
use lb_userspace::{
    config::{
        Agent, CheckKind, Config, ConfigError, Interface, Limits, Service, StatusRange, XdpMode,
        from_json, from_toml,
    },
    desired::{Algorithm, OnDeath, OnEmpty, Protocol},
};

use crate::{FULL, SMALL, parse, small};

#[test]
fn every_field_is_read() {
    let config = parse(FULL);
    assert_eq!(config.check(), Ok(()));
    let interface = |name: &str, xdp| Interface {
        name: name.to_owned(),
        xdp,
    };
    assert_eq!(
        config.agent.interfaces,
        [
            interface("eth0", XdpMode::Auto),
            interface("eth1", XdpMode::Native),
            interface("eth2", XdpMode::Auto)
        ]
    );
    let key = HashKey([0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f]);
    assert_eq!(config.agent.hash_key, key);
    let limits = Limits {
        services: 10,
        backends: 20,
        flows: 30,
    };
    assert_eq!(config.agent.limits, limits);
    assert_eq!(config.agent.admin.socket, PathBuf::from("/tmp/weir.sock"));
    assert_eq!(config.agent.full_nat.ports, (2000, 3000));
    let check = config.pools["web"].health_check.as_ref().unwrap();
    assert_eq!((check.kind, check.path()), (CheckKind::Http, "/healthz"));
    assert_eq!(check.timeout, Duration::from_millis(1500));
    assert!(check.status().contains(200) && !check.status().contains(201));
    assert_eq!((check.rise, check.fall, check.jitter_percent), (1, 4, 5));
    assert_eq!(config.pools["web"].backends["web1"].weight, 0);
    assert_eq!(config.pools["web"].backends["web.2"].weight, 100);
    assert_eq!(
        config.services["web"].idle_timeout(),
        Duration::from_secs(90)
    );
    assert_eq!(
        config.services["v6"].idle_timeout(),
        Duration::from_secs(30)
    );
    assert_eq!(
        config.services["direct"].idle_timeout(),
        Duration::from_secs(900)
    );
}

#[test]
fn defaults_are_as_documented() {
    let config = parse(SMALL);
    assert_eq!(config.check(), Ok(()));
    let Agent {
        limits,
        admin,
        full_nat,
        ..
    } = config.agent;
    assert_eq!((limits.services, limits.backends), (4096, 100_000));
    assert_eq!(limits.flows, 1_048_576);
    assert_eq!(admin.socket, PathBuf::from("/run/weir/admin.sock"));
    assert_eq!(admin.listen, None);
    assert_eq!(full_nat.ports, (1024, 32767));
    let check = config.pools["web"].health_check.as_ref().unwrap();
    assert_eq!(check.path(), "/");
    let status = StatusRange {
        first: 200,
        last: 299,
    };
    assert_eq!(check.status(), status);
    assert_eq!(check.interval, Duration::from_secs(2));
    assert_eq!(check.timeout, Duration::from_secs(1));
    assert_eq!((check.rise, check.fall, check.jitter_percent), (2, 3, 10));
    let pool = &config.pools["web"];
    assert_eq!((pool.health_floor_percent, pool.slow_start), (50, None));
    let service = &config.services["web"];
    assert_eq!(service.algorithm, Algorithm::Maglev);
    assert_eq!(service.on_backend_death, OnDeath::Reset);
    assert_eq!(service.on_no_backend, OnEmpty::Reset);
    assert_eq!((service.affinity, &service.fallback_pool), (None, &None));
}

#[test]
fn both_formats_round_trip() {
    for text in [FULL, SMALL] {
        let config = parse(text);
        let json = serde_json::to_string_pretty(&config).unwrap();
        assert!(!json.contains("null"), "{json}");
        assert_eq!(from_json::<Config>(json.as_bytes(), "").unwrap(), config);
        let toml = toml::to_string(&config).unwrap();
        assert_eq!(from_toml::<Config>(toml.as_bytes()).unwrap(), config);
    }
}

#[test]
fn resources_show_effective_values() {
    let service: Service = from_json(
        br#"{"address": "::1", "port": 1, "protocol": "udp", "mode": "dsr", "pool": "p"}"#,
        "services.dns",
    )
    .unwrap();
    assert_eq!(service.protocol, Protocol::Udp);
    let pool = &parse(SMALL).pools["web"];
    assert_eq!(
        serde_json::to_value(pool).unwrap(),
        serde_json::json!({
            "health_check": {
                "type": "http", "interval": "2s", "jitter_percent": 10, "timeout": "1s",
                "rise": 2, "fall": 3,
            },
            "health_floor_percent": 50,
            "backends": {"web1": {"address": "10.0.0.11:80", "weight": 100}},
        })
    );
}

fn examples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[test]
fn examples_load() {
    let directories = [
        examples(),
        examples().join("active-active"),
        examples().join("shared-sessions"),
        examples().join("three-tier"),
    ];
    let files: Vec<PathBuf> = directories
        .iter()
        .flat_map(|directory| fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml" || e == "json"))
        .collect();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert!(!config.services.is_empty(), "{}", file.display());
    }
}

/// `weir check`: whether it is content, and what it says.
fn check(arguments: &[&std::ffi::OsStr]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("check")
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.success(), said)
}

#[test]
fn certificates_are_checked_where_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = directory.path().display().to_string();
    let edge = fs::read_to_string(examples().join("three-tier/edge.toml")).unwrap();
    let file = directory.path().join("edge.toml");
    fs::write(&file, edge.replace("/etc/weir", &certificates)).unwrap();
    let (valid, said) = check(&[file.as_os_str()]);
    let expected = format!(
        "{}: services.www.tls.certificates[0].chain: {certificates}/www.pem: cannot be read: ",
        file.display()
    );
    assert!(!valid && said.contains(&expected), "{said}");
    assert!(check(&[file.as_os_str(), "--without-files".as_ref()]).0);
}

#[test]
fn toml_and_json_are_equal() {
    let load = |name| Config::load(&examples().join(name)).unwrap();
    assert_eq!(load("web-nat.toml"), load("web-nat.json"));
}

#[test]
fn the_documentation_is_a_configuration() {
    for page in [
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/http.md"),
    ] {
        let (_, rest) = page.split_once("```toml\n").expect("an example");
        let (example, _) = rest.split_once("```").unwrap();
        let config = parse(example);
        assert_eq!(config.check(), Ok(()));
        assert!(config.services.len() >= 2);
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.toml");
    let error = Config::load(&missing).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    let start = format!("{}: cannot read the configuration: ", missing.display());
    assert!(error.to_string().starts_with(&start), "{error}");

    let file = directory.path().join("weir.toml");
    fs::write(
        &file,
        small("pool = \"web\"", "pool = \"wbe\"").replace("eth0", ""),
    )
    .unwrap();
    let shown = Config::load(&file).unwrap_err().to_string();
    let file = file.display();
    assert_eq!(
        shown,
        format!(
            "{file}: agent.interfaces[0].name: missing or empty, expected an interface's name: \
             1 to 15 bytes without '/', ':' and spaces\n\
             {file}: services.web.pool: got \"wbe\", expected a pool's name: db, web \
             (did you mean \"web\"?)"
        )
    );

    let file = directory.path().join("weir.JSON");
    fs::write(&file, "{\n \"pools\": 5}").unwrap();
    let shown = Config::load(&file).unwrap_err().to_string();
    let file = file.display();
    assert_eq!(
        shown,
        format!("{file}:2:11: pools: got \"5\", expected a table of names")
    );
}
