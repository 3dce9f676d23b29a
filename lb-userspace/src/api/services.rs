//! `/v1/services`.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State as Extract},
    http::StatusCode,
};

use super::{Answer, Done, Error, put_status};
use crate::{
    config::{Service, from_json, join},
    state::{Refused, ServiceView, State},
};

pub(super) async fn all(Extract(state): Extract<State>) -> Answer<BTreeMap<String, ServiceView>> {
    Ok(Json(state.view().await?.services))
}

pub(super) async fn one(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
) -> Answer<ServiceView> {
    let service = state.view().await?.services.remove(&name);
    service
        .map(Json)
        .ok_or_else(|| Error::not_found("service", &name))
}

pub(super) async fn put(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
    body: Bytes,
) -> Done {
    let service: Service = from_json(&body, &join("services", &name))?;
    let old = state
        .change(move |config| Ok(config.services.insert(name, service)))
        .await?;
    Ok(put_status(old.is_some()))
}

pub(super) async fn delete(Extract(state): Extract<State>, Path(name): Path<String>) -> Done {
    state
        .change(move |config| {
            let old = config.services.remove(&name);
            old.ok_or(Refused::NotFound {
                what: "service",
                name,
            })
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
