//! A client of the admin API: one request a connection.

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
    rt::{Read, Write},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::{TcpStream, UnixStream};

use crate::api::ErrorBody;

/// Where the API is.
pub(super) struct Client {
    admin: String,
}

impl Client {
    /// `admin`: a Unix socket, known by its slash, or `ADDRESS:PORT`.
    pub(super) fn new(admin: &str) -> Self {
        Self {
            admin: admin.trim_start_matches("http://").to_owned(),
        }
    }

    /// Reads what is at `path`.
    ///
    /// # Errors
    ///
    /// The agent's refusal, in its words; or that it does not answer.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.request(Method::GET, path, None).await?;
        read(&body)
    }

    /// Changes what is at `path`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(super) async fn put(&self, path: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let body = serde_json::to_vec(value)?;
        self.request(Method::PUT, path, Some(body)).await.map(drop)
    }

    /// Asks a question of what is at `path`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        question: &impl Serialize,
    ) -> anyhow::Result<T> {
        let body = Some(serde_json::to_vec(question)?);
        read(&self.request(Method::POST, path, body).await?)
    }

    /// Has done what is at `path`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(super) async fn order(&self, path: &str) -> anyhow::Result<()> {
        self.request(Method::POST, path, None).await.map(drop)
    }

    /// Removes what is at `path`.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub(super) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.request(Method::DELETE, path, None).await.map(drop)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "weir");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.unwrap_or_default()))?;
        let no_agent = || format!("no agent answers at {}: is it running?", self.admin);
        match self.admin.contains('/') {
            true => {
                let stream = UnixStream::connect(&self.admin).await;
                send(stream.with_context(no_agent)?, request).await
            }
            false => {
                let stream = TcpStream::connect(&self.admin).await;
                send(stream.with_context(no_agent)?, request).await
            }
        }
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: Read + Write,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    if !status.is_success() {
        bail!("{}", refusal(status, &body));
    }
    Ok(body)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("the agent's answer is not what was expected")
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => format!("the agent answered {status}"),
    }
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> String {
    // Valid names need no escaping; the agent says what is wrong with the others.
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
