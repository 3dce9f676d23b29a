//! Where the shared document is: `etcd://HOST:PORT,HOST:PORT/KEY`.

use std::{
    fmt::{self, Display},
    path::PathBuf,
    str::FromStr,
};

use form_urlencoded::parse;

/// etcd's port for clients.
const PORT: u16 = 2379;

/// A key in etcd, and how to get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `HOST:PORT` each; at least one.
    pub endpoints: Vec<String>,
    /// The document's key, with its leading slash.
    pub key: String,
    /// `etcds://`: how to use TLS.
    pub tls: Option<Tls>,
    /// Whom to log in as, and the file that has the password.
    pub user: Option<(String, PathBuf)>,
}

/// How TLS is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates, in PEM, that the servers' must descend from; if absent, the system's.
    pub ca: Option<PathBuf>,
    /// This client's certificate and key, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why text is no [`Location`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part} of the address: got \"{value}\", expected {expected}")]
pub struct NoLocation {
    part: &'static str,
    value: String,
    expected: &'static str,
}

impl Location {
    /// What the keys of votes begin with. The number is their format's.
    pub(super) fn votes(&self) -> String {
        format!("{}/health/1/", self.key)
    }

    /// Whether text is meant as one.
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with("etcd:") || text.starts_with("etcds:")
    }
}

impl FromStr for Location {
    type Err = NoLocation;

    fn from_str(text: &str) -> Result<Self, NoLocation> {
        let wrong = |part, value: &str, expected| NoLocation {
            part,
            value: value.to_owned(),
            expected,
        };
        let scheme = "etcd://, or etcds:// for TLS";
        let (name, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("scheme", text, scheme))?;
        let mut tls = match name {
            "etcd" => None,
            "etcds" => Some(Tls::default()),
            _ => return Err(wrong("scheme", name, scheme)),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match hosts.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, hosts),
        };
        let name = "a name; the password is in a file: ?password_file=FILE";
        if let Some(bad) = user.filter(|user| user.is_empty() || user.contains(':')) {
            // Not a password's place to be shown.
            let shown = bad.split(':').next().unwrap_or_default();
            return Err(wrong("user", shown, name));
        }
        let endpoints = hosts
            .split(',')
            .map(|host| endpoint(host).ok_or_else(|| wrong("host", host, "HOST or HOST:PORT")))
            .collect::<Result<_, _>>()?;
        let bad_key = |c: char| c.is_whitespace() || c.is_control();
        if key.is_empty() || key.ends_with('/') || key.contains(bad_key) {
            let expected = "a key, without spaces and not ending in a slash, as in \
                            etcd://HOST:PORT/weir/front";
            return Err(wrong("key", key, expected));
        }
        let (mut ca, mut cert, mut cert_key, mut password) = (None, None, None, None);
        for (name, value) in parse(query.as_bytes()) {
            let place = match &*name {
                "ca" if tls.is_some() => &mut ca,
                "cert" if tls.is_some() => &mut cert,
                "cert_key" if tls.is_some() => &mut cert_key,
                "password_file" => &mut password,
                "ca" | "cert" | "cert_key" => {
                    let expected = "password_file alone, as only etcds:// uses TLS";
                    return Err(wrong("option", &name, expected));
                }
                _ => {
                    let expected = "one of ca, cert, cert_key, password_file";
                    return Err(wrong("option", &name, expected));
                }
            };
            if value.is_empty() {
                return Err(wrong("option", &name, "a file's path after it"));
            }
            *place = Some(PathBuf::from(&*value));
        }
        let both = "both cert and cert_key, or neither";
        let identity = match (cert, cert_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(wrong("option", "cert", both)),
            (None, Some(_)) => return Err(wrong("option", "cert_key", both)),
        };
        if let Some(tls) = &mut tls {
            *tls = Tls { ca, identity };
        }
        let user = match (user, password) {
            (Some(user), Some(file)) => Some((user.to_owned(), file)),
            (None, None) => None,
            (Some(user), None) => return Err(wrong("user", user, "?password_file=FILE as well")),
            (None, Some(file)) => {
                let file = file.to_string_lossy();
                return Err(wrong("option", &file, "a user too: USER@HOST:PORT"));
            }
        };
        Ok(Self {
            endpoints,
            key: format!("/{key}"),
            tls,
            user,
        })
    }
}

/// `HOST:PORT` of what may have no port.
fn endpoint(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address are within its brackets.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let literal = host.strip_prefix('[').map(|host| host.strip_suffix(']'));
    let good = match literal {
        Some(literal) => literal?.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
            !host.is_empty() && host.bytes().all(name)
        }
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => PORT,
    };
    good.then(|| format!("{host}:{port}"))
}

/// Without options: for people.
impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.tls {
            Some(_) => "etcds",
            None => "etcd",
        };
        write!(f, "{scheme}://{}{}", self.endpoints.join(","), self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        text.parse::<Location>().unwrap_err().to_string()
    }

    #[test]
    fn reads_what_is_there() {
        let plain: Location = "etcd://a.example:2,10.0.0.1,[2001:db8::1]:5/weir/front"
            .parse()
            .unwrap();
        assert_eq!(
            plain.endpoints,
            ["a.example:2", "10.0.0.1:2379", "[2001:db8::1]:5"]
        );
        assert_eq!((plain.key.as_str(), plain.tls), ("/weir/front", None));
        let one: Location = "etcd://[2001:db8::1]/k".parse().unwrap();
        assert_eq!(one.endpoints, ["[2001:db8::1]:2379"]);
        assert_eq!(one.to_string(), "etcd://[2001:db8::1]:2379/k");
        let full: Location = "etcds://weir@h/k?ca=%2Fca.pem&cert=c&cert_key=k&password_file=/p"
            .parse()
            .unwrap();
        let tls = Tls {
            ca: Some("/ca.pem".into()),
            identity: Some(("c".into(), "k".into())),
        };
        assert_eq!(full.tls, Some(tls));
        assert_eq!(full.user, Some(("weir".into(), "/p".into())));
        assert!(Location::is_meant_by("etcds:/x") && !Location::is_meant_by("/etc/etcd"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, words) in [
            ("etcd:/h/k", "scheme of the address: got \"etcd:/h/k\""),
            ("http://h/k", "scheme of the address: got \"http\""),
            ("etcd:///k", "host of the address: got \"\""),
            ("etcd://h:x/k", "host of the address: got \"h:x\""),
            ("etcd://h:0/k", "host of the address: got \"h:0\""),
            ("etcd://h:70000/k", "host of the address: got \"h:70000\""),
            ("etcd://h,/k", "host of the address: got \"\""),
            ("etcd://[h]/k", "host of the address: got \"[h]\""),
            (
                "etcd://2001:db8::1/k",
                "host of the address: got \"2001:db8::1\"",
            ),
            ("etcd://h", "key of the address: got \"\""),
            ("etcd://h/k/", "key of the address: got \"k/\""),
            ("etcd://u:secret@h/k", "user of the address: got \"u\""),
            ("etcd://u@h/k", "user of the address: got \"u\""),
            ("etcd://h/k?ca=f", "option of the address: got \"ca\""),
            ("etcds://h/k?cert=f", "option of the address: got \"cert\""),
            ("etcds://h/k?ca=", "option of the address: got \"ca\""),
            ("etcds://h/k?x=f", "option of the address: got \"x\""),
            (
                "etcd://h/k?password_file=f",
                "option of the address: got \"f\"",
            ),
        ] {
            let said = said(text);
            assert!(
                said.starts_with(words) && said.contains("expected "),
                "{said}"
            );
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
