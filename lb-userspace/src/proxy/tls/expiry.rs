//! When certificates end, and who is to be told before.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

/// How long before its end a certificate is warned of: two weeks.
const NEAR: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// File of the certificate.
    pub file: PathBuf,
    /// DNS names that it is for.
    pub names: Vec<String>,
    /// Its last second, in seconds since 1970.
    pub not_after: i64,
}

impl Expiry {
    /// What is to be said of a certificate that has ended at this time, or soon will have.
    pub fn warning(&self, now: SystemTime) -> Option<String> {
        // None that is in use has ended before 1970.
        let end = Duration::from_secs(u64::try_from(self.not_after).unwrap_or(0));
        let end = UNIX_EPOCH.checked_add(end)?;
        let says = match end.duration_since(now) {
            Err(_) => "has expired, on",
            Ok(left) if left < NEAR => "expires on",
            Ok(_) => return None,
        };
        let file = self.file.display();
        Some(format!("{file}: it {says} {}", format_rfc3339_seconds(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_or_has_is_warned_of() {
        let at = |days: u64| UNIX_EPOCH + Duration::from_secs(days * 24 * 60 * 60);
        let expiry = Expiry {
            file: "/etc/weir/www.pem".into(),
            names: vec!["www.test".to_owned()],
            // Day 100, and a second.
            not_after: 100 * 24 * 60 * 60 + 1,
        };
        assert_eq!(expiry.warning(at(86)), None);
        let soon = Some("/etc/weir/www.pem: it expires on 1970-04-11T00:00:01Z".to_owned());
        assert_eq!(expiry.warning(at(87)), soon);
        assert_eq!(expiry.warning(at(100)), soon);
        let over = "/etc/weir/www.pem: it has expired, on 1970-04-11T00:00:01Z".to_owned();
        assert_eq!(expiry.warning(at(101)), Some(over));
        let never = Expiry {
            // 9999-12-31, as RFC 5280, 4.1.2.5 has it.
            not_after: 253_402_300_799,
            ..expiry
        };
        assert_eq!(never.warning(at(20_000)), None);
    }
}
