//! The control socket: HTTP over a Unix socket in the data directory, for the command line. Whoever may open the socket may
//! do everything; the file's mode (0600) is the permission. The HTTP API for others comes on top of the same answers.
//!
//! | call | answers |
//! | --- | --- |
//! | `GET /calls` · `/calls/ID` · `/calls/ID/ladder` | live calls · one, live or past · its SIP messages |
//! | `GET /records?after=&limit=&since=&until=&number=&outcome=` | finished calls, oldest first |
//! | `GET /explain?way=&from=&to=&at=` | what would become of a call |
//! | `GET /trace?address=&extension=&calls=&after=&limit=` | the last SIP messages that belong to no call |
//! | `GET /phones` · `/trunks` · `/status` | extensions and their phones · carriers · counters |
//! | `POST /reload` · `/drain` | reads the configuration again · takes no new calls and ends with the last |
//! | `POST /directory` | reads again what was imported |
//! | `POST /pages/NUMBER` | plays the WAV file that is its body over a page |
//!
//! Lists answer `{items, next}`, errors are `application/problem+json` (RFC 9457).

pub mod client;
mod handle;

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::pin::Pin;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path as InPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::live::Away;
use super::store::{Cursor, Filter, Reader, StoreError};
use crate::b2bua::ladder::Traced;
use crate::b2bua::{Ask, LiveCall, PhoneView, TrunkView};
use crate::base::Wall;
use crate::call::record::{CallRecord, Outcome, RecordId};
use crate::media::wav::MAX_BYTES;
use crate::policy::explain::Question;

/// Name of the socket in the data directory.
pub const SOCKET: &str = "strowger.sock";

/// An answer that is waited for.
pub type Answer = Pin<Box<dyn Future<Output = Value> + Send>>;

/// What a running server can be asked and told.
pub trait Control: Clone + Send + Sync + 'static {
    /// Calls in progress.
    fn calls(&self) -> Vec<LiveCall>;
    /// One of them.
    fn call(&self, id: RecordId) -> Option<LiveCall>;
    /// Registered phones.
    fn phones(&self) -> Vec<PhoneView>;
    /// Extensions without one.
    fn away(&self) -> Vec<Away>;
    /// Trunks.
    fn trunks(&self) -> Vec<TrunkView>;
    /// Counters and addresses.
    fn status(&self) -> Answer;
    /// Asks the core; `null` where there is nothing.
    fn ask(&self, ask: Ask) -> Answer;
    /// The records, with everything that was saved by now. Blocks.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
    /// Reads the configuration again. Blocks. What to tell the operator, or why it was refused.
    fn reload(&self) -> Result<Vec<String>, String>;
    /// Reads again what was imported and puts it in force. Blocks. What there is now, or why the old lists stay.
    fn import(&self) -> Result<Value, String>;
    /// Puts a WAV file among the sounds, in place of one of that name. Blocks. What is wrong with it, in words.
    fn put_sound(&self, name: &str, file: &[u8]) -> Result<(), String>;
    /// Takes no new calls, ends with the last.
    fn drain(&self);
}

/// Serves the socket on the tokio runtime that this is called in. A socket that a dead server left is replaced: whoever
/// calls this holds the data directory.
pub fn serve(socket: &Path, control: impl Control) -> io::Result<()> {
    let fresh = socket.with_extension("sock.new");
    let _ = std::fs::remove_file(&fresh);
    let listener = tokio::net::UnixListener::bind(&fresh)?;
    // Nobody finds the socket before it is closed to others.
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, socket)?;
    let router = router(control);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the control socket ended");
        }
    });
    Ok(())
}

fn router<C: Control>(control: C) -> Router {
    Router::new()
        .route("/calls", get(async |State(c): State<C>| list(c.calls())))
        .route("/calls/{id}", get(call::<C>))
        .route("/calls/{id}/ladder", get(ladder::<C>))
        .route("/records", get(records::<C>))
        .route("/explain", get(explain::<C>))
        .route("/trace", get(trace::<C>))
        .route("/phones", get(async |State(c): State<C>| Json(phones(&c))))
        .route("/trunks", get(async |State(c): State<C>| list(c.trunks())))
        .route("/status", get(async |State(c): State<C>| Json(c.status().await)))
        .route("/reload", post(reload::<C>))
        .route("/directory", post(directory::<C>))
        .route("/drain", post(drain::<C>))
        .route("/pages/{number}", post(page::<C>).layer(DefaultBodyLimit::max(MAX_BYTES)))
        .with_state(control)
}

fn list<T: Serialize>(items: Vec<T>) -> Json<Value> {
    Json(json!({ "items": items, "next": null }))
}

/// Why a request was refused.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(status, detail) = self;
        let title = status.canonical_reason().unwrap_or("Error");
        let body = Json(json!({ "title": title, "status": status.as_u16(), "detail": detail }));
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Refused {
        Refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

fn id(text: &str) -> Result<RecordId, Refused> {
    text.parse().map_err(|_| Refused(StatusCode::NOT_FOUND, "not a call id (26 letters and digits)".to_owned()))
}

async fn call<C: Control>(State(control): State<C>, InPath(text): InPath<String>) -> Result<Json<Value>, Refused> {
    let id = id(&text)?;
    if let Some(live) = control.call(id) {
        return Ok(Json(json!({ "live": true, "call": live })));
    }
    let record = blocking(move || control.reader()?.record(id)).await?;
    let record = record.ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("there is no call {id}")))?;
    Ok(Json(json!({ "live": false, "call": record })))
}

async fn ladder<C: Control>(State(control): State<C>, InPath(text): InPath<String>) -> Result<Json<Value>, Refused> {
    let id = id(&text)?;
    match control.ask(Ask::Ladder(id)).await {
        Value::Null => {
            let why = format!("the messages of call {id} are not kept any more (`ladder` in [node] says how much is)");
            Err(Refused(StatusCode::NOT_FOUND, why))
        }
        ladder => Ok(Json(ladder)),
    }
}

/// Every extension: with its phones, or without.
fn phones(control: &impl Control) -> Value {
    let mut items: Vec<(String, Value)> = Vec::new();
    items.extend(control.phones().into_iter().map(|p| (p.extension.clone(), json!(p))));
    items.extend(control.away().into_iter().map(|a| (a.extension.clone(), json!(a))));
    items.sort_by(|a, b| a.0.cmp(&b.0));
    json!({ "items": items.into_iter().map(|(_, item)| item).collect::<Vec<Value>>(), "next": null })
}

async fn trace<C: Control>(
    State(control): State<C>,
    query: Result<Query<Traced>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(wanted) = query.map_err(|error| Refused(StatusCode::BAD_REQUEST, error.body_text()))?;
    match control.ask(Ask::Trace(wanted)).await {
        Value::Null => Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "the server is too busy to tell".to_owned())),
        answer => Ok(Json(answer)),
    }
}

/// Which records, as a query.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Wanted {
    /// Only after this cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Calls that began at or after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Wall>,
    /// Calls that began before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Wall>,
    /// Caller, called or shown number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

impl Wanted {
    /// As the store wants it.
    pub fn filter(self) -> Filter {
        Filter {
            after: self.after.unwrap_or(0),
            limit: self.limit.unwrap_or(0),
            since: self.since,
            until: self.until,
            number: self.number,
            outcome: self.outcome,
        }
    }
}

/// A page of records with the cursor to go on from; none behind the last page.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// Oldest first.
    pub items: Vec<CallRecord>,
    /// Cursor of the last item.
    pub next: Option<Cursor>,
}

impl Page {
    /// Reads one.
    pub fn read(reader: &mut dyn Reader, wanted: Wanted) -> Result<Page, StoreError> {
        let found = reader.records(&wanted.filter())?;
        let next = found.last().map(|(cursor, _)| *cursor);
        Ok(Page { items: found.into_iter().map(|(_, record)| record).collect(), next })
    }
}

async fn records<C: Control>(
    State(control): State<C>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Page>, Refused> {
    let Query(wanted) = query.map_err(|error| Refused(StatusCode::BAD_REQUEST, error.body_text()))?;
    Ok(Json(blocking(move || Page::read(&mut *control.reader()?, wanted)).await?))
}

async fn explain<C: Control>(
    State(control): State<C>,
    query: Result<Query<Question>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(question) = query.map_err(|error| Refused(StatusCode::BAD_REQUEST, error.body_text()))?;
    let answer = control.ask(Ask::Explain(question)).await;
    match answer.get("error").and_then(Value::as_str) {
        Some(why) => Err(Refused(StatusCode::NOT_FOUND, why.to_owned())),
        None => Ok(Json(answer)),
    }
}

async fn reload<C: Control>(State(control): State<C>) -> Result<Json<Value>, Refused> {
    let done = tokio::task::spawn_blocking(move || control.reload()).await;
    match done {
        Ok(Ok(notes)) => Ok(Json(json!({ "notes": notes }))),
        Ok(Err(why)) => Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(_) => Err(Refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            "reloading broke off; the old configuration stays".to_owned(),
        )),
    }
}

async fn directory<C: Control>(State(control): State<C>) -> Result<Json<Value>, Refused> {
    match tokio::task::spawn_blocking(move || control.import()).await {
        Ok(Ok(now)) => Ok(Json(now)),
        Ok(Err(why)) => Err(Refused(StatusCode::SERVICE_UNAVAILABLE, why)),
        Err(_) => {
            let why = "reading broke off; what was imported before stays in force".to_owned();
            Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, why))
        }
    }
}

/// Each page has one file at a time: the next one takes its place among the sounds.
async fn page<C: Control>(
    State(control): State<C>,
    InPath(number): InPath<String>,
    file: Bytes,
) -> Result<Json<Value>, Refused> {
    let sound = format!("page:{number}");
    let (name, its) = (sound.clone(), control.clone());
    let put = tokio::task::spawn_blocking(move || its.put_sound(&name, &file)).await;
    match put {
        Ok(Ok(())) => {}
        Ok(Err(why)) => return Err(Refused(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(_) => return Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "reading the file broke off".to_owned())),
    }
    let answer = control.ask(Ask::Page { page: number.into(), sound: sound.into() }).await;
    match answer.get("error").and_then(Value::as_str) {
        Some(why) => Err(Refused(StatusCode::NOT_FOUND, why.to_owned())),
        None => Ok(Json(answer)),
    }
}

async fn drain<C: Control>(State(control): State<C>) -> (StatusCode, Json<Value>) {
    let calls = control.calls().len();
    control.drain();
    (StatusCode::ACCEPTED, Json(json!({ "calls": calls })))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "reading broke off".to_owned())),
    }
}

#[cfg(test)]
mod tests;
