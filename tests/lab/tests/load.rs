//! Load counts what it sees.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{
    Lab, Plan,
    load::{Load, Results, Work},
    retry, servers,
};

#[test]
fn a_hundred_thousand_requests() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let _nginx = servers::nginx(&lab.backends()[0], 80)?;
    let target = (lab.backends()[0].addresses.v4, 80).into();
    let results = Load::http(lab.client(), Work::new(target, 100_000))?.finish()?;
    assert_eq!(
        (results.requests, results.failed),
        (100_000, 0),
        "{:?}",
        results.failures
    );
    assert_eq!(results.by_backend["be1"], 100_000);
    Ok(())
}

#[test]
fn endless_load_is_seen_and_stopped() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let mut nginx = servers::nginx(&lab.backends()[0], 80)?;
    let target = (lab.backends()[0].addresses.v6, 80).into();
    let load = Load::http(lab.client(), Work::endless(target))?;
    let wait = |what: fn(&Results, u64) -> bool, than: u64| {
        retry(Duration::from_secs(20), || {
            let results = load.results();
            ensure!(what(&results, than), "{results:?}");
            Ok(())
        })
    };
    wait(|results, than| results.requests > than, 100)?;
    assert_eq!(load.results().failed, 0);
    nginx.stop()?;
    wait(|results, than| results.failed > than, 100)?;
    nginx.start()?;
    let before = load.results().by_backend["be1"];
    wait(|results, than| results.by_backend["be1"] > than, before)?;
    let results = load.stop();
    assert_eq!(results.requests, results.failed + results.by_backend["be1"]);
    assert_eq!(results.failures.len(), 10);
    assert!(
        results
            .failures
            .iter()
            .all(|reason| reason.contains("2001:db8:")),
        "{results:?}"
    );
    Ok(())
}

#[test]
fn clients_rest_between_connections() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let _nginx = servers::nginx(&lab.backends()[0], 80)?;
    let work = Work {
        clients: 1,
        per_connection: 2,
        rest: Duration::from_millis(100),
        ..Work::new((lab.backends()[0].addresses.v4, 80).into(), 6)
    };
    let start = Instant::now();
    let results = Load::http(lab.client(), work)?.finish()?;
    assert_eq!((results.requests, results.failed), (6, 0), "{results:?}");
    // Three connections.
    assert!(start.elapsed() >= Duration::from_millis(200));
    Ok(())
}

#[test]
fn endless_load_does_not_finish() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let target = (lab.backends()[0].addresses.v4, 80).into();
    assert!(
        Load::http(lab.client(), Work::endless(target))?
            .finish()
            .is_err()
    );
    Ok(())
}

#[test]
fn a_burst_of_datagrams_loses_none() -> Result<()> {
    let lab = Lab::new(&Plan {
        backends: 1,
        ..Plan::default()
    })?;
    let _echo = servers::echo(&lab.backends()[0], 7)?;
    for address in lab.backends()[0].addresses.both() {
        let work = Work {
            clients: 2000,
            per_connection: 1,
            ..Work::new((address, 7).into(), 20_000)
        };
        let results = Load::udp(lab.client(), work)?.finish()?;
        assert_eq!(results.failed, 0, "{:?}", results.failures);
        assert_eq!(results.by_backend["be1"], 20_000);
    }
    Ok(())
}
