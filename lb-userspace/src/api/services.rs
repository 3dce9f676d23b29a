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
    Ok(Json(state.services().await?))
}

pub(super) async fn one(
    Extract(state): Extract<State>,
    Path(name): Path<String>,
) -> Answer<ServiceView> {
    let service = state.service(name.clone()).await?;
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
    let replaced = state
        .change(move |draft| Ok(draft.set_service(name, Some(service))))
        .await?;
    Ok(put_status(replaced))
}

pub(super) async fn delete(Extract(state): Extract<State>, Path(name): Path<String>) -> Done {
    state
        .change(move |draft| match draft.set_service(name.clone(), None) {
            true => Ok(()),
            false => Err(Refused::not_found("service", &name)),
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
