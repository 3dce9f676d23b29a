//! What the API says when it refuses.

use axum::{
    Json,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{Problem, Problems},
    dataplane::ApplyError,
    ha::NotHandedOver,
    shared::NotShared,
    state::Refused,
};

/// A refusal; nothing was changed, unless it is the data path's own failure (status 500).
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    body: Body,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// What is wrong, for people.
    pub error: String,
    /// The fields that are wrong, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

impl Error {
    fn new(status: StatusCode, error: impl ToString, problems: Vec<Problem>) -> Self {
        let error = error.to_string();
        let body = Body { error, problems };
        Self { status, body }
    }

    pub(super) fn not_found(what: &'static str, name: &str) -> Self {
        Refused::not_found(what, name).into()
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let status = match &refused {
            Refused::NotFound { .. } => StatusCode::NOT_FOUND,
            Refused::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refused::DataPlane(ApplyError::Kernel(_)) | Refused::Together => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Refused::Proxy(_) | Refused::Unattached(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Refused::DataPlane(_) | Refused::Unready(_) => StatusCode::CONFLICT,
            Refused::Shared(NotShared::Unreachable(_) | NotShared::Unknown(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Refused::Shared(_) => StatusCode::CONFLICT,
            Refused::Ending => StatusCode::SERVICE_UNAVAILABLE,
        };
        let message = refused.to_string();
        let problems = match refused {
            Refused::Invalid(Problems(problems)) => problems,
            _ => Vec::new(),
        };
        Self::new(status, message, problems)
    }
}

impl From<NotHandedOver> for Error {
    fn from(refused: NotHandedOver) -> Self {
        let status = match refused {
            NotHandedOver::NotFound(_) => StatusCode::NOT_FOUND,
            NotHandedOver::NotActive(_) => StatusCode::CONFLICT,
            NotHandedOver::Ending => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, refused, Vec::new())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::new(StatusCode::BAD_REQUEST, &problem, vec![problem.clone()])
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("{error:#}"),
            Vec::new(),
        )
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Error {
    let message = format!(
        "there is nothing at {}; docs/api.md lists every path",
        uri.path()
    );
    Error::new(StatusCode::NOT_FOUND, message, Vec::new())
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Error {
    let message = format!("{} does not take {method}", uri.path());
    Error::new(StatusCode::METHOD_NOT_ALLOWED, message, Vec::new())
}
