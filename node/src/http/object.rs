//! `GET` and `HEAD` of an object: waits until there is something to see of it, and sends it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use shared::manifest::ObjectKind;
use shared::view::http_date;
use shared_io::store::{JobStore, ObjectFile, ObjectView, Standing};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Asked, Extent, etag};
use super::body::Reader;
use super::range::Range;
use super::{Problem, blocking, media};

/// How long a request waits for something to see of a known job (CONTRACT, HTTP).
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a query may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    #[serde(default)]
    from: From,
}

/// Where the reading of a live object begins.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    #[default]
    Begin,
    Live,
}

/// Answers a request for the object `name`.
pub(super) async fn answer(
    store: Arc<JobStore>,
    name: &str,
    request: &Parts,
    (reader, stop): (OwnedSemaphorePermit, CancellationToken),
) -> Result<Response, Problem> {
    let asked = read_request(request)?;
    let (object, answer, file) = look(&store, name, &asked, &stop).await?;
    let headers = headers(&object);
    let extent = match answer {
        Answer::Send(extent) => extent,
        Answer::NotModified => return Ok((StatusCode::NOT_MODIFIED, headers).into_response()),
        Answer::Beyond(len) => return Ok(beyond(name, len)),
        Answer::Wait => return Err(nothing_yet(name)),
    };
    let body = match file {
        Some(file) if request.method == Method::GET => {
            Body::new(Reader::new(file, extent, (reader, stop)).into_body())
        }
        _ => Body::empty(),
    };
    Ok(send(headers, &extent, body))
}

fn read_request(request: &Parts) -> Result<Asked, Problem> {
    let start = Query::<Start>::try_from_uri(&request.uri).map_err(|_unknown| {
        let text = "the query may be ?from=begin or ?from=live".to_owned();
        Problem::new(StatusCode::BAD_REQUEST, text)
    })?;
    let field = |name: HeaderName| {
        request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    Ok(Asked {
        from_live: start.0.from == From::Live,
        range: field(RANGE).and_then(|field| Range::parse(&field)),
        if_none_match: field(IF_NONE_MATCH),
        if_range: field(IF_RANGE),
    })
}

/// Waits until there is an answer, for [`PATIENCE`] at most, and opens what it is about.
async fn look(
    store: &Arc<JobStore>,
    name: &str,
    asked: &Asked,
    stop: &CancellationToken,
) -> Result<(ObjectView, Answer, Option<ObjectFile>), Problem> {
    let mut changes = store.changes();
    let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
    loop {
        changes.borrow_and_update();
        let (reading, called) = (Arc::clone(store), name.to_owned());
        let found = blocking(move || find(&reading, &called)).await?;
        if let Some((object, file)) = found {
            match asked.answer(&object) {
                Answer::Wait => {}
                answer => return Ok((object, answer, file)),
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Problem::later("the node stops")),
            () = &mut patience => return Err(nothing_yet(name)),
            // The store keeps the sender.
            _changed = changes.changed() => {}
        }
    }
}

/// The object and its bytes; none while the log may still open it.
fn find(
    store: &Arc<JobStore>,
    name: &str,
) -> Result<Option<(ObjectView, Option<ObjectFile>)>, Problem> {
    // In this order: what is not in the log when it has ended never will be.
    let has_ended = store.end()?.is_some();
    let Some(object) = store.object(name)? else {
        if has_ended {
            let text = format!("job {} has no object {name:?}", store.job());
            return Err(Problem::new(StatusCode::NOT_FOUND, text));
        }
        return Ok(None);
    };
    if object.attributes.kind == ObjectKind::Directory {
        let text = format!("{name:?} is a directory; /jobs/{} lists what is in it", store.job());
        return Err(Problem::new(StatusCode::NOT_FOUND, text));
    }
    let file = store.open_object(&object)?;
    Ok(Some((object, file)))
}

fn nothing_yet(name: &str) -> Problem {
    Problem::later(format!("nothing of {name:?} is here yet; come again"))
}

fn beyond(name: &str, len: u64) -> Response {
    let text = format!("{name:?} has {len} bytes, the range lies beyond them");
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, text);
    ([(CONTENT_RANGE, format!("bytes */{len}"))], problem).into_response()
}

/// What is said of an object whatever part of it is sent.
fn headers(object: &ObjectView) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media::of(&object.name)));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if object.standing != Standing::Whole {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return headers;
    }
    let modified = object.attributes.modified.map(|(seconds, _)| http_date(seconds));
    for (name, value) in [(ETAG, etag(object)), (LAST_MODIFIED, modified)] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

fn send(mut headers: HeaderMap, extent: &Extent, body: Body) -> Response {
    if let Some(len) = extent.len() {
        headers.insert(CONTENT_LENGTH, len.into());
    }
    let mut status = StatusCode::OK;
    if let Some(range) = extent.content_range().and_then(|range| range.try_into().ok()) {
        headers.insert(CONTENT_RANGE, range);
        status = StatusCode::PARTIAL_CONTENT;
    }
    (status, headers, body).into_response()
}
