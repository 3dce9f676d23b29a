//! `/v1/routes`.

use axum::{Json, Router, routing::get};
use tokio::sync::watch;

use crate::ha::routes::RoutesView;

pub(super) fn router(routes: watch::Receiver<RoutesView>) -> Router {
    let all = move || {
        let routes = routes.borrow().clone();
        std::future::ready(Json(routes))
    };
    Router::new().route("/v1/routes", get(all))
}
