//! `/v1/ha`.

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Path, State as Extract},
    http::StatusCode,
    routing::{get, post},
};

use super::{Answer, Done};
use crate::ha::{GroupView, Ha};

pub(super) fn router(ha: Ha) -> Router {
    Router::new()
        .route("/v1/ha", get(all))
        .route("/v1/ha/{group}/hand-over", post(hand_over))
        .with_state(ha)
}

async fn all(Extract(ha): Extract<Ha>) -> Answer<BTreeMap<String, GroupView>> {
    Ok(Json(ha.view().await))
}

async fn hand_over(Extract(ha): Extract<Ha>, Path(group): Path<String>) -> Done {
    ha.hand_over(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}
