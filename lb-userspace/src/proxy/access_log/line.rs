//! From a request to its line.

use std::{
    io::Write,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{
    HeaderMap, Method, Version,
    header::{REFERER, USER_AGENT},
};
use serde::Serialize;

/// What must be remembered of a request from before it went on.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Host, as asked for.
    pub host: String,
    /// Path and query, as asked for.
    pub target: String,
    /// Version of HTTP that the client speaks.
    pub version: Version,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Referer`.
    pub referer: Option<String>,
    /// The client, behind trusted hops.
    pub client: IpAddr,
    /// The request's id.
    pub id: Option<String>,
    /// The trace that it is part of, if it is traced, in hex.
    pub trace: Option<String>,
    /// Name of its route; empty for none.
    pub route: String,
}

impl Seen {
    /// Of a request as it came, whose client, id, trace and route are not known yet.
    pub fn new(
        method: &Method,
        target: &http::Uri,
        version: Version,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Seen {
        let text = |name| {
            headers.get(name).map(|value: &http::HeaderValue| {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            })
        };
        Seen {
            method: method.clone(),
            host: text(http::header::HOST)
                .or_else(|| target.authority().map(|authority| authority.to_string()))
                .unwrap_or_default(),
            target: target
                .path_and_query()
                .map_or_else(|| target.to_string(), ToString::to_string),
            version,
            user_agent: text(USER_AGENT),
            referer: text(REFERER),
            client: peer,
            id: None,
            trace: None,
            route: String::new(),
        }
    }
}

/// A request at its end.
#[derive(Debug)]
pub struct Entry<'a> {
    /// What it was.
    pub seen: &'a Seen,
    /// Name of the service.
    pub service: &'a str,
    /// When it began.
    pub began: SystemTime,
    /// Status of the answer; 0 if there was none.
    pub status: u16,
    /// Whether the answer came to its end.
    pub complete: bool,
    /// Pool and backend that answered, or that failed last.
    pub backend: Option<(&'a str, &'a str)>,
    /// Tries after the first.
    pub retries: u32,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// TLS version and cipher, if it came so.
    pub tls: Option<(&'a str, &'a str)>,
    /// Until it was sent to the backend that answered.
    pub queued: Option<Duration>,
    /// From then to the answer's headers.
    pub answered: Option<Duration>,
    /// From its beginning to its end.
    pub total: Duration,
}

#[derive(Serialize)]
struct Json<'a> {
    time: String,
    service: &'a str,
    route: &'a str,
    client: IpAddr,
    method: &'a str,
    host: &'a str,
    target: &'a str,
    version: &'a str,
    status: u16,
    complete: bool,
    pool: Option<&'a str>,
    backend: Option<&'a str>,
    retries: u32,
    bytes_in: u64,
    bytes_out: u64,
    ms_queued: Option<f64>,
    ms_answer: Option<f64>,
    ms_total: f64,
    tls_version: Option<&'a str>,
    tls_cipher: Option<&'a str>,
    user_agent: Option<&'a str>,
    referer: Option<&'a str>,
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
}

/// An object with all that is known.
pub(super) fn json(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let seen = entry.seen;
    let time = humantime_serde::re::humantime::format_rfc3339_millis(entry.began);
    let object = Json {
        time: time.to_string(),
        service: entry.service,
        route: &seen.route,
        client: seen.client.to_canonical(),
        method: seen.method.as_str(),
        host: &seen.host,
        target: &seen.target,
        version: version(seen.version),
        status: entry.status,
        complete: entry.complete,
        pool: entry.backend.map(|(pool, _)| pool),
        backend: entry.backend.map(|(_, backend)| backend),
        retries: entry.retries,
        bytes_in: entry.bytes_in,
        bytes_out: entry.bytes_out,
        ms_queued: entry.queued.map(millis),
        ms_answer: entry.answered.map(millis),
        ms_total: millis(entry.total),
        tls_version: entry.tls.map(|(version, _)| version),
        tls_cipher: entry.tls.map(|(_, cipher)| cipher),
        user_agent: seen.user_agent.as_deref(),
        referer: seen.referer.as_deref(),
        request_id: seen.id.as_deref(),
        trace_id: seen.trace.as_deref(),
    };
    // Into memory, and of types that JSON has.
    let _ = serde_json::to_writer(&mut *line, &object);
    line.push(b'\n');
}

/// Milliseconds with microseconds.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// As Apache and nginx write it: `%h - - %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`.
pub(super) fn combined(entry: &Entry<'_>, line: &mut Vec<u8>) {
    let seen = entry.seen;
    // Into memory: never fails.
    let _ = write!(
        line,
        "{} - - [{}] \"{} ",
        seen.client.to_canonical(),
        date(entry.began),
        seen.method
    );
    quoted(&seen.target, line);
    let _ = write!(
        line,
        " {}\" {:03} {} \"",
        version(seen.version),
        entry.status,
        entry.bytes_out
    );
    quoted(seen.referer.as_deref().unwrap_or("-"), line);
    line.extend_from_slice(b"\" \"");
    quoted(seen.user_agent.as_deref().unwrap_or("-"), line);
    line.extend_from_slice(b"\"\n");
}

/// Within quotes, so that a client can neither end them nor the line.
fn quoted(text: &str, line: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | ..=0x1f | 0x7f.. => {
                let _ = write!(line, "\\x{byte:02X}");
            }
            _ => line.push(byte),
        }
    }
}

/// `10/Oct/2000:13:55:36 +0000`.
fn date(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years (Hinnant, "chrono-compatible date algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let january_next = month >= 10;
    let month = if january_next { month - 10 } else { month + 2 };
    let year = era * 400 + year + u64::from(january_next);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month = MONTHS[month as usize];
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(target: &str) -> Seen {
        let mut headers = HeaderMap::new();
        headers.insert(
            USER_AGENT,
            http::HeaderValue::from_bytes(b"a\"b\\\xff\tc").unwrap(),
        );
        headers.insert("host", "a.org".parse().unwrap());
        let uri = http::Uri::from_static("/");
        Seen {
            id: Some("1f".to_owned()),
            route: "api".to_owned(),
            target: target.to_owned(),
            ..Seen::new(
                &Method::GET,
                &uri,
                Version::HTTP_2,
                &headers,
                [192, 0, 2, 1].into(),
            )
        }
    }

    fn entry(seen: &Seen) -> Entry<'_> {
        Entry {
            seen,
            service: "web",
            began: UNIX_EPOCH + Duration::from_millis(971_186_136_789),
            status: 200,
            complete: true,
            backend: Some(("web", "web1")),
            retries: 1,
            bytes_in: 0,
            bytes_out: 512,
            tls: Some(("TLSv1.3", "TLS13_AES_128_GCM_SHA256")),
            queued: Some(Duration::from_micros(1500)),
            answered: None,
            total: Duration::from_millis(12),
        }
    }

    #[test]
    fn lines_are_one_line() {
        let seen = seen("/a?b=\"c\"");
        let mut line = Vec::new();
        combined(&entry(&seen), &mut line);
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] \"GET /a?b=\\x22c\\x22 HTTP/2.0\" 200 512 \
             \"-\" \"a\\x22b\\x5C\\xEF\\xBF\\xBD\\x09c\"\n"
        );
        let mut line = Vec::new();
        json(&entry(&seen), &mut line);
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(object["time"], "2000-10-10T13:55:36.789Z");
        assert_eq!(object["target"], "/a?b=\"c\"");
        assert_eq!(object["ms_queued"], 1.5);
        assert_eq!(object["ms_answer"], serde_json::Value::Null);
        assert_eq!(object["backend"], "web1");
        assert_eq!(object["user_agent"], "a\"b\\\u{fffd}\tc");
    }

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_827_696, "29/Feb/2000:12:34:56 +0000"),
            (1_709_251_199, "29/Feb/2024:23:59:59 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
            (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
