//! A node's HTTP: what it holds, and the objects themselves, while they come in too.
//!
//! A name is only ever looked up in the job's manifest; what it leads to is opened by the store,
//! never by a path that is made of it.

mod answer;
mod body;
mod media;
mod object;
mod range;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, HeaderValue, RETRY_AFTER,
};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::job::Kind;
use shared::manifest::ObjectKind;
use shared::view::{KindView, VERSION};
use shared::wire::message::Phase;
use shared::wire::request::JobRef;
use shared_io::job::{Job, Keeping, Relays};
use shared_io::link::chain;
use shared_io::store::{JobStore, ObjectView, Standing, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use target::Target;

/// Requests under `/jobs` that are answered at a time, those that wait and follow among them.
/// Each keeps at most one buffer of [`body::BUFFER_LEN`].
const READERS_MAX: usize = 64;
/// Objects in one answer about a job.
const OBJECTS_LISTED_MAX: usize = 1_000;
/// What a client that is told to come again is told to wait, in seconds.
const RETRY_AFTER_S: &str = "1";

/// What the handlers share.
#[derive(Debug)]
struct Http {
    relays: Arc<Relays>,
    readers: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The routes under `/jobs`. What is under way when `stop` is cancelled is cut off.
pub(crate) fn router(relays: Arc<Relays>, stop: CancellationToken) -> Router {
    let http = Http { relays, readers: Arc::new(Semaphore::new(READERS_MAX)), stop };
    Router::new()
        .route("/jobs", any(handle))
        .route("/jobs/{*rest}", any(handle))
        .with_state(Arc::new(http))
}

/// What a request cannot have, and why.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    fn unknown_job(job: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("this node holds no job {job:?}; see /jobs"))
    }

    fn later(text: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Removed(_) | StoreError::Failed { .. } => StatusCode::GONE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, chain(&error))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Json(json!({ "v": VERSION, "error": self.text }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

async fn handle(State(http): State<Arc<Http>>, request: Parts) -> Response {
    let mut response = match request.method {
        Method::GET | Method::HEAD => match http.answer(&request).await {
            Ok(response) => response,
            Err(problem) => problem.into_response(),
        },
        Method::OPTIONS => preflight(),
        ref other => {
            let text = format!("{other} is not possible here; GET and HEAD are");
            let allow = [(ALLOW, "GET, HEAD, OPTIONS")];
            (allow, Problem::new(StatusCode::METHOD_NOT_ALLOWED, text)).into_response()
        }
    };
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

/// Lets pages of any origin read, and see how far they have come.
fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (ACCESS_CONTROL_ALLOW_HEADERS, "Range, If-Range, If-None-Match"),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "Accept-Ranges, Content-Length, Content-Range, ETag"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Which part of the objects of a job is asked for.
#[derive(Debug, Deserialize)]
struct Page {
    /// The number of the first object.
    #[serde(default)]
    first: u32,
}

impl Http {
    async fn answer(&self, request: &Parts) -> Result<Response, Problem> {
        let target = Target::parse(request.uri.path())
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let reader = self.reader()?;
        match target {
            Target::Jobs => self.jobs().await,
            Target::Job(job) => {
                let (job, store) = self.find(&job)?;
                let page = Query::<Page>::try_from_uri(&request.uri)
                    .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
                blocking(move || show(&job, &store, page.0.first)).await
            }
            Target::Object(job, name) => {
                let (_, store) = self.find(&job)?;
                object::answer(store, &name, request, (reader, self.stop.clone())).await
            }
        }
    }

    fn reader(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let readers = Arc::clone(&self.readers).try_acquire_owned();
        readers.map_err(|_none_left| {
            Problem::later(format!("{READERS_MAX} readers are served already; come again"))
        })
    }

    /// The job of this id, or the newest of this name.
    fn find(&self, job: &str) -> Result<(Arc<Job>, Arc<JobStore>), Problem> {
        let unknown = || Problem::unknown_job(job);
        let found = match job.parse::<JobRef>().map_err(|_not_a_name| unknown())? {
            JobRef::Id(id) => self.relays.get(id),
            JobRef::Name(name) => {
                let named = self.relays.all().into_iter().filter(|job| job.object().name == name);
                named.max_by_key(|job| (job.object().created_at_ms, job.id()))
            }
        };
        let found = found.ok_or_else(unknown)?;
        let store = store_of(&found).ok_or_else(unknown)?;
        Ok((found, store))
    }

    async fn jobs(&self) -> Result<Response, Problem> {
        let jobs = self.relays.all();
        blocking(move || {
            let known = |job: &Arc<Job>| Some(facts(job, &*store_of(job)?));
            let jobs: Vec<Value> = jobs.iter().filter_map(known).collect();
            Ok(Json(json!({ "v": VERSION, "jobs": jobs })).into_response())
        })
        .await
    }
}

fn store_of(job: &Job) -> Option<Arc<JobStore>> {
    match job.keeping() {
        Keeping::Disk(store) => Some(Arc::clone(store)),
        Keeping::Memory(_) => None,
    }
}

/// Runs what reads the disk where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    })
}

/// What this node knows of a job.
fn facts(job: &Job, store: &JobStore) -> Value {
    let report = job.report();
    let object = job.object();
    let (state, mut reason) = match report.phase {
        Phase::Receiving => ("receiving", None),
        Phase::Stalled(reason) => ("receiving", Some(reason)),
        Phase::Complete => ("complete", None),
        Phase::Failed(reason) => ("failed", Some(reason)),
        Phase::Dropped => ("failed", Some("it was dropped".to_owned())),
    };
    let end = store.end().unwrap_or_else(|error| {
        reason.get_or_insert_with(|| chain(&error));
        None
    });
    let kind = match object.kind {
        Kind::Files => KindView::Files,
        Kind::Live => KindView::Live,
    };
    json!({
        "v": VERSION,
        "id": object.id.to_string(),
        "name": object.name,
        "kind": kind,
        "state": state,
        "reason": reason,
        "size": end.map(|(size, _)| size).or(object.size),
        "bytes": report.bytes,
        "digest": end.map(|(_, digest)| digest.to_string()),
        "object_count": store.object_count(),
    })
}

fn show(job: &Job, store: &JobStore, first: u32) -> Result<Response, Problem> {
    let mut shown = facts(job, store);
    let objects = store.objects(first, OBJECTS_LISTED_MAX)?;
    let next = objects.last().map(|last| last.number + 1);
    if let Some(fields) = shown.as_object_mut() {
        let next = next.filter(|next| *next < store.object_count());
        fields.insert("objects".to_owned(), objects.iter().map(object_facts).collect());
        fields.insert("next".to_owned(), json!(next));
    }
    Ok(Json(shown).into_response())
}

fn object_facts(object: &ObjectView) -> Value {
    let kind = match object.attributes.kind {
        ObjectKind::File => "file",
        ObjectKind::Directory => "directory",
        ObjectKind::Live => "live",
    };
    let state = match object.standing {
        Standing::Awaited => "waiting",
        Standing::Growing { .. } => "growing",
        Standing::Whole => "whole",
    };
    json!({
        "name": object.name,
        "kind": kind,
        "state": state,
        "size": object.closed.map(|(size, _)| size),
        "bytes": object.shown,
        "digest": object.closed.map(|(_, digest)| digest.to_string()),
    })
}
