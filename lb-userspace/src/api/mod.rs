//! The admin API: JSON over HTTP, and metrics, on a Unix socket and, if configured, on a TCP address.

mod error;
mod ha;
mod listen;
mod metrics;
mod pools;
mod routes;
mod services;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State as Extract},
    http::StatusCode,
    routing::{get, patch, post, put},
};

use tokio::sync::watch;

pub(crate) use self::pools::{Drain, Weight};
pub use self::{
    error::{Body as ErrorBody, Error},
    listen::{Listeners, Serving, SocketFile, listen},
};
use crate::{
    config::{Config, Draft, Problem, Problems, from_json},
    dataplane::{Explanation, Question},
    events::{self, EventView},
    ha::{Ha, routes::RoutesView, sync::PeersView},
    shared::SharedView,
    state::{State, StatusView},
};

/// Room for a configuration with a hundred thousand backends.
const LARGEST_BODY: usize = 64 << 20;

type Answer<T> = Result<Json<T>, Error>;
type Done = Result<StatusCode, Error>;

/// Every route, answered by these.
pub fn router(
    state: State,
    ha: Ha,
    peers: Option<watch::Receiver<PeersView>>,
    routes: watch::Receiver<RoutesView>,
) -> Router {
    let backend = get(pools::backend)
        .put(pools::put_backend)
        .delete(pools::delete_backend);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/shared", get(shared_view))
        .route("/v1/events", get(events))
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
        .route(
            "/v1/pools/{pool}/backends/{backend}/drain",
            put(pools::drain).delete(pools::undrain),
        )
        .route("/v1/explain", post(explain))
        .with_state(state.clone())
        .merge(metrics::router(metrics::Sources {
            state,
            ha: ha.clone(),
            peers: peers.clone(),
            routes: routes.clone(),
        }))
        .merge(ha::router(ha, peers))
        .merge(routes::router(routes))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
}

async fn status(Extract(state): Extract<State>) -> Answer<StatusView> {
    Ok(Json(state.status().await?))
}

/// `null` where nothing is shared.
async fn shared_view(Extract(state): Extract<State>) -> Answer<Option<SharedView>> {
    Ok(Json(state.shared()))
}

/// What has happened lately, the oldest first.
async fn events() -> Json<Vec<EventView>> {
    Json(events::last())
}

async fn config(Extract(state): Extract<State>) -> Answer<Config> {
    Ok(Json(state.config().await?))
}

/// Many changes at once, or none of them.
async fn put_config(Extract(state): Extract<State>, body: Bytes) -> Done {
    let new: Config = from_json(&body, "")?;
    let edit = |draft: &mut Draft<'_>| {
        let old = draft.config();
        for (field, same) in [("agent", new.agent == old.agent), ("ha", new.ha == old.ha)] {
            if !same {
                new.check()?;
                let expected = "the values that the agent started with: restart it to change them";
                let problem = Problem::new(field, "another value", expected);
                return Err(Problems(vec![problem]).into());
            }
        }
        draft.replace(new.pools, new.services);
        Ok(())
    };
    state.change(edit).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What would become of a client's packet. The body is a [`Question`].
async fn explain(Extract(state): Extract<State>, body: Bytes) -> Answer<Explanation> {
    let question: Question = from_json(&body, "")?;
    if question.client.is_ipv4() != question.vip.is_ipv4() {
        let expected = format!("an address of the family of {}", question.vip);
        return Err(Problem::new("client", question.client, expected).into());
    }
    Ok(Json(state.explain(question).await?))
}

/// The status for what was put in place of this.
fn put_status(replaced: bool) -> StatusCode {
    match replaced {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::CREATED,
    }
}
