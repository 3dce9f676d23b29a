//! The files that a configuration names.

use super::{compile::Unusable, tls::check};
use crate::config::Config;

/// What is wrong with the certificates, keys and authorities of all services and pools, expired
/// ones included; reads them, and serves nothing.
pub fn bad_files(config: &Config) -> Vec<Unusable> {
    let services = config.services.iter().flat_map(|(name, service)| {
        let bad = service.tls.iter().flat_map(check::of_service);
        bad.map(|bad| Unusable::Tls(name.clone(), bad))
    });
    let pools = config.pools.iter().flat_map(|(name, pool)| {
        let tls = pool.http.tls.iter();
        let bad = tls.flat_map(|tls| check::of_pool(tls, pool.http.version));
        bad.map(|bad| Unusable::Pool(name.clone(), bad))
    });
    services.chain(pools).collect()
}
