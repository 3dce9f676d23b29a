//! Who asks, and how often: sessions, rate limits, connections, PROXY headers, the access log.

use std::{collections::BTreeSet, fs, io::Write as _};

use anyhow::{Context as _, Result, ensure};
use lab::retry;
use serde_json::{Value, json};
use weir_tests::agent::PATIENCE;

use crate::scene::Scene;

#[test]
fn sessions_stay_with_their_backend_by_a_cookie() -> Result<()> {
    let http = json!({
        "sticky": { "cookie": "stay" },
        "routes": {
            "free": { "path": "/free", "rewrite": { "path": "/name" }, "sticky": { "enabled": false } },
            "cached": {
                "path": "/cached", "rewrite": { "path": "/cache/public,max-age=60" },
            },
            "kept": { "path": "/kept", "rewrite": { "path": "/cache/private,max-age=60" } },
        },
    });
    let scene = Scene::new(3, &http, &json!({}))?;
    let jar = tempfile::NamedTempFile::new()?;
    let jar = jar.path().to_str().context("a path in UTF-8")?;
    let url = scene.url("/name");
    let first = scene.get(&["--include", "-c", jar, &url])?;
    let cookie = first
        .lines()
        .find(|line| line.starts_with("set-cookie: stay="));
    let cookie = cookie.with_context(|| first.clone())?;
    ensure!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let name = first.lines().last().context("a name")?.to_owned();
    ensure!(!cookie.contains(&name), "{cookie}");
    for _ in 0..20 {
        let again = scene.get(&["--include", "-b", jar, &url])?;
        ensure!(again.ends_with(&format!("{name}\n")), "not {name}: {again}");
        ensure!(!again.contains("set-cookie"), "{again}");
    }
    // A route may do without.
    let free = (0..20).map(|_| scene.get(&["--include", "-b", jar, &scene.url("/free")]));
    let free = free.collect::<Result<BTreeSet<_>>>()?;
    ensure!(
        free.iter().all(|answer| !answer.contains("set-cookie")),
        "{free:?}"
    );
    // Caches that clients share may not keep one client's cookie.
    for (path, cookie, expected) in [
        ("/cached", "a=b", &["public,max-age=60", "private"][..]),
        ("/kept", "a=b", &["private,max-age=60"]),
        ("/cached", jar, &["public,max-age=60"]),
        ("/name", jar, &[]),
        ("/name", "a=b", &["private"]),
    ] {
        let answer = scene.get(&["--include", "-b", cookie, &scene.url(path)])?;
        let lines = answer.lines().map(str::to_lowercase);
        let said = lines.filter_map(|line| Some(line.strip_prefix("cache-control: ")?.to_owned()));
        let said: Vec<_> = said.collect();
        ensure!(said == expected, "{path} with {cookie}: {said:?}");
    }
    // Without it, or with a forged one, a client goes anywhere.
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(scene.get(&["-b", "stay=AAAAAAAAAAAAAAAAAAAAAA", &url])?);
    }
    ensure!(seen.len() > 1, "{seen:?}");
    // It is gone: the session moves, and the cookie is renewed.
    let path = format!("/v1/pools/web/backends/{name}");
    scene.agent.change("DELETE", &path, &Value::Null)?;
    let moved = scene.get(&["--include", "-b", jar, "-c", jar, &url])?;
    ensure!(moved.contains("set-cookie: stay="), "{moved}");
    let other = moved.lines().last().context("a name")?.to_owned();
    ensure!(other != name, "{moved}");
    for _ in 0..5 {
        let stays = scene.get(&["-b", jar, &url])?;
        ensure!(stays.trim() == other, "{stays}");
    }
    Ok(())
}

#[test]
fn rates_are_limited_by_key() -> Result<()> {
    let limits = json!([{ "key": "header:x-key", "requests": 1, "per": "1h", "burst": 3 }]);
    let scene = Scene::new(1, &json!({ "rate_limits": limits }), &json!({}))?;
    let ask = |key: &str| {
        let header = format!("x-key: {key}");
        scene.get(&["--include", "-H", &header, &scene.url("/name")])
    };
    for _ in 0..3 {
        ensure!(ask("a")?.starts_with("HTTP/1.1 200 "));
    }
    let refused = ask("a")?;
    ensure!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let after = refused
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "));
    let after: u64 = after.with_context(|| refused.clone())?.trim().parse()?;
    ensure!((3000..=3600).contains(&after), "{refused}");
    ensure!(ask("b")?.starts_with("HTTP/1.1 200 "), "another key");
    let without = scene.get(&["--include", &scene.url("/name")])?;
    ensure!(without.starts_with("HTTP/1.1 200 "), "none: {without}");
    ensure!(scene.served() == 5, "{}", scene.served());
    Ok(())
}

#[test]
fn connections_of_a_client_are_limited() -> Result<()> {
    let limits = json!({ "limits": { "connections_per_client": 2 } });
    let scene = Scene::new(1, &limits, &json!({}))?;
    // Who is silent is accepted after a second, and then while one that asks is served.
    let speaking = || {
        let mut held = scene.connect()?;
        held.write_all(b"G")?;
        anyhow::Ok(held)
    };
    let refused = || anyhow::Ok(!scene.curl(&[&scene.url("/name")])?.status.success());
    let held = retry(PATIENCE, || {
        let held = [speaking()?, speaking()?];
        ensure!(refused()?, "a third is served");
        Ok(held)
    })?;
    drop(held);
    retry(PATIENCE, || {
        ensure!(!refused()?, "none is served");
        Ok(())
    })
}

#[test]
fn proxy_headers_say_who_the_client_is() -> Result<()> {
    let http = json!({ "proxy_protocol_from": ["0.0.0.0/0"] });
    let scene = Scene::new(1, &http, &json!({}))?;
    let url = scene.url("/head");
    let own = scene.lab.client_addresses().v4;
    let answer = scene.get(&["--haproxy-protocol", &url])?;
    ensure!(
        answer.contains(&format!("x-forwarded-for: {own}\n")),
        "{answer}"
    );
    let bare = scene.curl(&[&url])?;
    ensure!(!bare.status.success(), "one without the header is served");
    let line = "PROXY TCP4 198.51.100.9 203.0.113.1 1 2\r\nGET /head HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = scene.raw(line.as_bytes(), PATIENCE)?;
    ensure!(
        answer.contains("x-forwarded-for: 198.51.100.9\n"),
        "{answer}"
    );
    Ok(())
}

#[test]
fn requests_are_logged() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("access.log");
    let http = json!({
        "access_log": { "to": file },
        "routes": { "named": { "path": "/name" } },
    });
    let scene = Scene::new(1, &http, &json!({}))?;
    scene.get(&["-A", "tester", &scene.url("/name?a=b")])?;
    scene.get(&["-d", "12345", &scene.url("/status/404")])?;
    let lines = || -> Result<Vec<Value>> {
        let text = fs::read_to_string(&file).unwrap_or_default();
        Ok(text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?)
    };
    retry(PATIENCE, || {
        ensure!(lines()?.len() == 2, "{:?}", lines()?);
        Ok(())
    })?;
    let [first, second] = &lines()?[..] else {
        unreachable!("two, as was waited for")
    };
    let client = scene.lab.client_addresses().v4.to_string();
    for (field, expected) in [
        ("service", json!("web")),
        ("route", json!("named")),
        ("client", json!(client)),
        ("method", json!("GET")),
        ("target", json!("/name?a=b")),
        ("status", json!(200)),
        ("complete", json!(true)),
        ("backend", json!("be1")),
        ("retries", json!(0)),
        ("bytes_out", json!(4)),
        ("user_agent", json!("tester")),
        ("tls_version", Value::Null),
    ] {
        ensure!(first[field] == expected, "{field}: {first}");
    }
    let [queued, answer, total] =
        ["ms_queued", "ms_answer", "ms_total"].map(|field| first[field].as_f64().unwrap_or(-1.0));
    ensure!(
        queued >= 0.0 && answer > 0.0 && total >= queued + answer,
        "{first}"
    );
    ensure!(
        second["status"] == 404 && second["bytes_in"] == 5,
        "{second}"
    );
    Ok(())
}
