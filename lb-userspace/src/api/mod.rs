//! The admin API: JSON over HTTP, on a Unix socket and, if configured, on a TCP address.

mod error;
mod listen;
mod pools;
mod services;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State as Extract},
    http::StatusCode,
    routing::{get, patch},
};

pub(crate) use self::pools::Weight;
pub use self::{
    error::{Body as ErrorBody, Error},
    listen::{Listeners, listen, serve},
};
use crate::{
    config::{Config, from_json},
    state::{State, StatusView},
};

/// Room for a configuration with a hundred thousand backends.
const LARGEST_BODY: usize = 64 << 20;

type Answer<T> = Result<Json<T>, Error>;
type Done = Result<StatusCode, Error>;

/// Every route, answered by this state.
pub fn router(state: State) -> Router {
    let backend = get(pools::backend)
        .put(pools::put_backend)
        .delete(pools::delete_backend);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/config", get(config).put(put_config))
        .route("/v1/services", get(services::all))
        .route(
            "/v1/services/{service}",
            get(services::one)
                .put(services::put)
                .delete(services::delete),
        )
        .route("/v1/pools", get(pools::all))
        .route(
            "/v1/pools/{pool}",
            get(pools::one).put(pools::put).delete(pools::delete),
        )
        .route("/v1/pools/{pool}/backends/{backend}", backend)
        .route(
            "/v1/pools/{pool}/backends/{backend}/weight",
            patch(pools::set_weight).put(pools::set_weight),
        )
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(state)
}

async fn status(Extract(state): Extract<State>) -> Answer<StatusView> {
    Ok(Json(state.view().await?.status))
}

async fn config(Extract(state): Extract<State>) -> Answer<Config> {
    Ok(Json(state.view().await?.config))
}

/// Many changes at once, or none of them.
async fn put_config(Extract(state): Extract<State>, body: Bytes) -> Done {
    let new: Config = from_json(&body, "")?;
    let edit = |config: &mut Config| {
        *config = new;
        Ok(())
    };
    state.change(edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The status for what was put in place of this.
fn put_status(replaced: bool) -> StatusCode {
    match replaced {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::CREATED,
    }
}
