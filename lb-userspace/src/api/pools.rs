//! `/v1/pools` and their backends.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State as Extract},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};

use super::{Answer, Done, Error, put_status};
use crate::{
    config::{Backend, Config, Pool, from_json, join},
    state::{BackendView, PoolView, Refused, State},
};

pub(super) async fn all(Extract(state): Extract<State>) -> Answer<BTreeMap<String, PoolView>> {
    Ok(Json(state.view().await?.pools))
}

pub(super) async fn one(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
) -> Answer<PoolView> {
    let pool = state.view().await?.pools.remove(&name);
    pool.map(Json)
        .ok_or_else(|| Error::not_found("pool", &name))
}

pub(super) async fn put(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
    body: Bytes,
) -> Done {
    let pool: Pool = from_json(&body, &join("pools", &name))?;
    let old = state
        .change(move |config| Ok(config.pools.insert(name, pool)))
        .await?;
    Ok(put_status(old.is_some()))
}

pub(super) async fn delete(Extract(state): Extract<State>, Path(name): Path<String>) -> Done {
    state
        .change(move |config| {
            let old = config.pools.remove(&name);
            old.ok_or(Refused::NotFound { what: "pool", name })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

type BackendPath = Path<(String, String)>;

pub(super) async fn backend(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
) -> Answer<BackendView> {
    let mut pools = state.view().await?.pools;
    let pool = pools
        .get_mut(&pool)
        .ok_or_else(|| Error::not_found("pool", &pool))?;
    let backend = pool.backends.remove(&name);
    backend
        .map(Json)
        .ok_or_else(|| Error::not_found("backend", &name))
}

pub(super) async fn put_backend(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
    body: Bytes,
) -> Done {
    let backend: Backend = from_json(&body, &backend_field(&pool, &name))?;
    let old = state
        .change(move |config| Ok(backends(config, pool)?.insert(name, backend)))
        .await?;
    Ok(put_status(old.is_some()))
}

pub(super) async fn delete_backend(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
) -> Done {
    state
        .change(move |config| {
            let old = backends(config, pool)?.remove(&name);
            old.ok_or(no_backend(name))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body that sets a weight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Weight {
    /// Share of new flows, relative to the pool's other backends; 0: none.
    pub(crate) weight: u16,
}

pub(super) async fn set_weight(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
    body: Bytes,
) -> Done {
    let Weight { weight } = from_json(&body, &backend_field(&pool, &name))?;
    state
        .change(move |config| {
            let backend = backends(config, pool)?.get_mut(&name);
            backend.ok_or(no_backend(name))?.weight = weight;
            Ok(())
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The body that drains a backend.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drain {
    /// When it is out with whatever is left; absent: when nothing is.
    #[serde(
        default,
        with = "humantime_serde",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) deadline: Option<Duration>,
}

pub(super) async fn drain(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
    body: Bytes,
) -> Done {
    let deadline = match body.is_empty() {
        true => None,
        false => from_json::<Drain>(&body, &backend_field(&pool, &name))?.deadline,
    };
    state.drain(pool, name, deadline).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn undrain(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
) -> Done {
    state.undrain(pool, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn backends(config: &mut Config, pool: String) -> Result<&mut BTreeMap<String, Backend>, Refused> {
    match config.pools.get_mut(&pool) {
        Some(pool) => Ok(&mut pool.backends),
        None => Err(Refused::NotFound {
            what: "pool",
            name: pool,
        }),
    }
}

fn no_backend(name: String) -> Refused {
    Refused::NotFound {
        what: "backend",
        name,
    }
}

fn backend_field(pool: &str, name: &str) -> String {
    join(&join(&join("pools", pool), "backends"), name)
}
