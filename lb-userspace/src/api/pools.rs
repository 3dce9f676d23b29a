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
    config::{Backend, Draft, Pool, from_json, join},
    state::{BackendView, PoolView, Refused, State},
};

pub(super) async fn all(Extract(state): Extract<State>) -> Answer<BTreeMap<String, PoolView>> {
    Ok(Json(state.pools().await?))
}

pub(super) async fn one(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
) -> Answer<PoolView> {
    let pool = state.pool(name.clone()).await?;
    pool.map(Json)
        .ok_or_else(|| Error::not_found("pool", &name))
}

pub(super) async fn put(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
    body: Bytes,
) -> Done {
    let pool: Pool = from_json(&body, &join("pools", &name))?;
    let replaced = state
        .change(move |draft| Ok(draft.set_pool(name, Some(pool))))
        .await?;
    Ok(put_status(replaced))
}

pub(super) async fn delete(Extract(state): Extract<State>, Path(name): Path<String>) -> Done {
    state
        .change(move |draft| match draft.set_pool(name.clone(), None) {
            true => Ok(()),
            false => Err(Refused::not_found("pool", &name)),
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

type BackendPath = Path<(String, String)>;

pub(super) async fn backend(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
) -> Answer<BackendView> {
    Ok(Json(state.backend(pool, name).await??))
}

pub(super) async fn put_backend(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
    body: Bytes,
) -> Done {
    let backend: Backend = from_json(&body, &backend_field(&pool, &name))?;
    let replaced = state
        .change(move |draft| {
            backends(draft, &pool)?;
            Ok(draft.set_backend(&pool, name, Some(backend)))
        })
        .await?;
    Ok(put_status(replaced))
}

pub(super) async fn delete_backend(
    Extract(state): Extract<State>,
    Path((pool, name)): BackendPath,
) -> Done {
    state
        .change(move |draft| {
            backends(draft, &pool)?;
            match draft.set_backend(&pool, name.clone(), None) {
                true => Ok(()),
                false => Err(Refused::not_found("backend", &name)),
            }
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
        .change(move |draft| {
            let backend = backends(draft, &pool)?.get(&name).cloned();
            let backend = backend.ok_or_else(|| Refused::not_found("backend", &name))?;
            draft.set_backend(&pool, name, Some(Backend { weight, ..backend }));
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

fn backends<'a>(
    draft: &'a Draft<'_>,
    pool: &str,
) -> Result<&'a BTreeMap<String, Backend>, Refused> {
    let found = draft.config().pools.get(pool);
    let found = found.ok_or_else(|| Refused::not_found("pool", pool))?;
    Ok(&found.backends)
}

fn backend_field(pool: &str, name: &str) -> String {
    join(&join(&join("pools", pool), "backends"), name)
}
