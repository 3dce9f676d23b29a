//! The document in two parts.

use std::path::PathBuf;

use lb_userspace::config::{Config, Local, Problem, Shared, from_toml};

use crate::FULL;

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(name);
    std::fs::write(&file, text).unwrap();
    (directory, file)
}

#[test]
fn both_parts_make_the_whole() {
    let whole: Config = from_toml(FULL.as_bytes()).unwrap();
    let json = Shared::of(&whole).to_json().unwrap();
    let shared = Shared::parse(&json).unwrap();
    assert_eq!(shared, Shared::of(&whole));
    shared.check().unwrap();
    let local: String = FULL
        .lines()
        .take_while(|line| !line.starts_with("[pools"))
        .filter(|line| !line.starts_with("hash_key"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let (_directory, file) = file("node.toml", &local);
    let made = Local::load(&file).unwrap().with(shared);
    assert_eq!(made.agent, whole.agent);
    assert_eq!((made.pools, made.services), (whole.pools, whole.services));
}

#[test]
fn a_field_in_the_wrong_part_is_named() {
    for (text, field) in [
        ("[agent]\ninterfaces = [\"eth0\"]", "agent.interfaces"),
        ("[agent]\nadmin.listen = \"127.0.0.1:1\"", "agent.admin"),
        ("[ha.groups]", "ha"),
        ("{\"ha\": {}}", "ha"),
    ] {
        let Problem {
            field: named,
            expected,
            ..
        } = Shared::parse(text.as_bytes()).unwrap_err();
        assert_eq!(named, field);
        assert!(expected.contains("each node's own"), "{expected}");
    }
    let typo = Shared::parse(b"[agent]\nhash_kye = \"\"").unwrap_err();
    assert!(typo.field == "agent.hash_kye", "{typo}");
    for (text, field) in [
        ("[pools.p]", "pools"),
        ("[services]", "services"),
        (
            "[agent]\nhash_key = \"000102030405060708090a0b0c0d0e0f\"",
            "agent.hash_key",
        ),
    ] {
        let (_directory, file) = file("node.toml", text);
        let said = Local::load(&file).unwrap_err().to_string();
        assert!(said.contains(&format!("{field}: got")), "{said}");
        assert!(said.contains("shared by all nodes"), "{said}");
    }
}

/// What only a node can say is not asked of the shared part alone.
#[test]
fn the_shared_part_is_checked_alone() {
    let service = |mode: &str, pool: &str| {
        let text = format!(
            "[pools.p.backends]\na = {{ address = \"10.0.0.1:80\" }}\n[services.s]\naddress = \"203.0.113.1\"\nport = 80\nprotocol = \"tcp\"\nmode = \"{mode}\"\npool = \"{pool}\""
        );
        Shared::parse(text.as_bytes()).unwrap().check()
    };
    service("nat", "p").unwrap();
    service("full-nat", "p").unwrap();
    let problems = service("full-nat", "q").unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert_eq!(problems.0[0].field, "services.s.pool");
}
