//! The interface by which accounts ask a hub to carry threads. JSON over HTTP/1.1.
//!
//! | Request | Body | Answer |
//! |---|---|---|
//! | `GET /health` | | `ok`, to anybody |
//! | `GET /v1/status` | | where the hub is, what the account has and may have |
//! | `POST /v1/cards` | | `{"card": ..}` |
//! | `POST /v1/threads` | `{"ticket": .., "bytes": ..}`; `bytes` may be left out | the thread |
//! | `GET /v1/threads` | | the account's threads |
//! | `DELETE /v1/threads/{id}` | | nothing |
//! | `GET /leno` | | a web socket for peers, if the hub is to serve them here |
//!
//! Every request but the first and the last shows the account's token: `Authorization: Bearer <token>`. An error is
//! `{"error": code, "message": text}`.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use hyper_util::rt::TokioIo;
use leno::{Error, Role, Ticket, Ws};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::config::Account;
use crate::hub::{Carried, Hub, HubError};
use crate::ledger::LedgerError;

/// Longest body of a request: a ticket is a few hundred characters.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// How long a client may take to read the answer to its request for a web socket.
const UPGRADE: Duration = Duration::from_secs(10);

/// Serves the interface until `stop` resolves.
///
/// # Errors
///
/// What accepting connections fails with.
pub async fn serve(
    listener: TcpListener,
    hub: Hub,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = router(hub).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, router);
    served.with_graceful_shutdown(stop).await
}

/// The routes, for those who serve them beside others.
pub fn router(hub: Hub) -> Router {
    let mut router = Router::new();
    if hub.config().serve_ws {
        router = router.route("/leno", get(upgrade));
    }
    router
        .route("/health", get(async || "ok\n"))
        .route("/v1/status", get(status))
        .route("/v1/cards", post(card))
        .route("/v1/threads", get(threads).post(carry))
        .route("/v1/threads/{id}", delete(release))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(hub)
}

/// Makes a web socket of a connection and hands it to the peer, which asks who is there.
async fn upgrade(State(hub): State<Hub>, mut request: Request) -> Response {
    let Some(ws) = hub.ws().cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let answer = match Ws::answer(&request) {
        Ok(answer) => answer,
        Err(status) => return status.into_response(),
    };
    let shown = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let from = shown.map(|ConnectInfo(socket)| socket.ip());
    // From this machine everybody comes whom a proxy lets through: they are not one machine.
    let from = from.filter(|ip| !ip.to_canonical().is_loopback());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // The connection is there as soon as the answer was sent, or never.
        if let Ok(Ok(stream)) = timeout(UPGRADE, upgraded).await {
            // Of whom there are too many, nobody is told more.
            let _ = ws.accept_upgraded(TokioIo::new(stream), from);
        }
    });
    answer.map(|()| Body::empty())
}

/// The account whose token a request shows.
struct Caller(Account);

impl FromRequestParts<Hub> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, hub: &Hub) -> Result<Self, Refusal> {
        let shown = parts.headers.get(AUTHORIZATION);
        let token = shown.and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
        let account = token.and_then(|token| hub.config().account_of(token));
        account.cloned().map(Self).ok_or(Refusal {
            status: StatusCode::UNAUTHORIZED,
            code: "unknown_token",
            message: "no account has this token".to_owned(),
        })
    }
}

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.code, "message": self.message });
        (self.status, Json(body)).into_response()
    }
}

impl From<HubError> for Refusal {
    fn from(error: HubError) -> Self {
        let (status, code) = match &error {
            HubError::NoSuchThread => (StatusCode::NOT_FOUND, "no_such_thread"),
            HubError::Ledger(LedgerError::File(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "ledger_failed")
            }
            HubError::Ledger(LedgerError::Taken) => (StatusCode::CONFLICT, "carried_for_another"),
            HubError::Ledger(LedgerError::HubIsFull { .. }) => {
                (StatusCode::INSUFFICIENT_STORAGE, "hub_is_full")
            }
            HubError::Ledger(_) => (StatusCode::FORBIDDEN, "over_quota"),
            HubError::Peer(Error::TicketOfAnother) => (StatusCode::BAD_REQUEST, "not_our_ticket"),
            HubError::Peer(Error::Closed) => (StatusCode::SERVICE_UNAVAILABLE, "closing"),
            HubError::Peer(_) => (StatusCode::INTERNAL_SERVER_ERROR, "peer_failed"),
            HubError::Shared(_) => (StatusCode::INTERNAL_SERVER_ERROR, "shared_store_failed"),
        };
        let mut message = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            message = source.to_string();
        }
        Self {
            status,
            code,
            message,
        }
    }
}

impl From<JsonRejection> for Refusal {
    fn from(error: JsonRejection) -> Self {
        Self {
            status: error.status(),
            code: "bad_body",
            message: error.body_text(),
        }
    }
}

type Answer = Result<Json<Value>, Refusal>;

async fn status(State(hub): State<Hub>, Caller(account): Caller) -> Answer {
    let carried = hub.carried(&account).await?;
    let promised: u64 = carried.iter().map(|it| it.promise.bytes).sum();
    let kept = carried.iter().filter_map(|it| it.status.as_ref());
    let bytes: u64 = kept.map(|status| status.bytes).sum();
    let mut answer = json!({
        "peer": hub.peer().id().to_string(),
        "addresses": hub.addresses(),
        "threads": carried.len(),
        "bytes": bytes,
        "bytes_promised": promised,
        "threads_max": account.threads,
        "bytes_max": account.bytes,
    });
    if account.operator {
        let report = hub.peer().sync_once(std::time::Duration::ZERO).await;
        let report = report.map_err(HubError::from)?;
        let traffic = hub.peer().traffic().await.map_err(HubError::from)?;
        if let Some(answer) = answer.as_object_mut() {
            let connected = report.level.len() + report.behind.len();
            answer.insert("connected".to_owned(), connected.into());
            answer.insert("sent".to_owned(), traffic.sent.into());
            answer.insert("received".to_owned(), traffic.received.into());
            answer.insert("bytes_max".to_owned(), hub.config().bytes.into());
        }
    }
    Ok(Json(answer))
}

async fn card(State(hub): State<Hub>, Caller(account): Caller) -> Answer {
    let card = hub.card(&account).await?;
    Ok(Json(json!({ "card": card.to_string() })))
}

/// The body of `POST /v1/threads`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    ticket: String,
    bytes: Option<u64>,
}

async fn carry(
    State(hub): State<Hub>,
    Caller(account): Caller,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let Json(wish) = wish?;
    let ticket: Ticket = wish.ticket.parse().map_err(|error| Refusal {
        status: StatusCode::BAD_REQUEST,
        code: "bad_ticket",
        message: format!("{error}"),
    })?;
    let carried = hub.carry(&account, &ticket, wish.bytes).await?;
    Ok((StatusCode::CREATED, Json(describe(&account, &carried))))
}

async fn threads(State(hub): State<Hub>, Caller(account): Caller) -> Answer {
    let carried = hub.carried(&account).await?;
    let all: Vec<_> = carried.iter().map(|it| describe(&account, it)).collect();
    Ok(Json(json!({ "threads": all })))
}

async fn release(
    State(hub): State<Hub>,
    Caller(account): Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    hub.release(&account, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn describe(account: &Account, carried: &Carried) -> Value {
    let status = carried.status.as_ref();
    let mut it = json!({
        "id": carried.id,
        "bytes_promised": carried.promise.bytes,
        "synced": status.is_some_and(|status| status.role == Some(Role::Replicator)),
        "bytes": status.map_or(0, |status| status.bytes),
        "records": status.map_or(0, |status| status.stored),
    });
    if let (Some(shared), Some(it)) = (carried.shared, it.as_object_mut()) {
        it.insert("shared".to_owned(), shared.into());
    }
    if account.operator
        && let Some(it) = it.as_object_mut()
    {
        it.insert("account".to_owned(), carried.promise.account.clone().into());
    }
    it
}
