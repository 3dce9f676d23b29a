//! `/v1/ha`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, State as Extract},
    http::StatusCode,
    routing::{get, post},
};

use tokio::sync::watch;

use super::{Answer, Done};
use crate::ha::{GroupView, Ha, sync::PeersView};

pub(super) fn router(ha: Ha, peers: Option<watch::Receiver<PeersView>>) -> Router {
    let sync = move || {
        let peers = peers.as_ref().map(|peers| peers.borrow().clone());
        std::future::ready(Json(peers.unwrap_or_default()))
    };
    Router::new()
        .route("/v1/ha", get(all))
        .route("/v1/ha/{group}/hand-over", post(hand_over))
        .route("/v1/sync", get(sync))
        .with_state(ha)
}

async fn all(Extract(ha): Extract<Ha>) -> Answer<BTreeMap<String, GroupView>> {
    Ok(Json(ha.view().await))
}

async fn hand_over(Extract(ha): Extract<Ha>, Path(group): Path<String>) -> Done {
    ha.hand_over(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}
