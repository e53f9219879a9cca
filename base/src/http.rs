//! The base's HTTP: what it knows of jobs and nodes, as JSON, for operators on this machine.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use shared::id::{Name, Role};
use shared::view::VERSION;
use shared::wire::request::{JobRef, Reply, Request};
use shared_io::health::{self, Readiness};

use crate::hub::Hub;
use crate::jobs::{Answer, Asker};

/// All routes.
pub(crate) fn router(hub: Arc<Hub>, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/api/v1/jobs", get(jobs))
        .route("/api/v1/jobs/{job}", get(job))
        .route("/api/v1/nodes", get(nodes))
        .with_state(Arc::clone(&hub))
        .merge(health::router(hub as Arc<dyn Readiness>, metrics))
}

async fn jobs(State(hub): State<Arc<Hub>>) -> Response {
    match ask(&hub, Request::Jobs).await {
        Ok(Reply::Jobs(jobs)) => {
            let jobs: Vec<Value> = jobs.iter().map(without_nodes).collect();
            Json(json!({ "v": VERSION, "jobs": jobs })).into_response()
        }
        other => problem(other),
    }
}

async fn job(State(hub): State<Arc<Hub>>, Path(job): Path<String>) -> Response {
    let Ok(job) = job.parse::<JobRef>() else {
        return (StatusCode::NOT_FOUND, Json(json!({ "v": VERSION, "error": "unknown job" })))
            .into_response();
    };
    match ask(&hub, Request::Job(job)).await {
        Ok(Reply::Job(view)) => Json(*view).into_response(),
        other => problem(other),
    }
}

async fn nodes(State(hub): State<Arc<Hub>>) -> Response {
    match ask(&hub, Request::Nodes).await {
        Ok(Reply::Nodes(nodes)) => Json(json!({ "v": VERSION, "nodes": nodes })).into_response(),
        other => problem(other),
    }
}

/// Asks as an operator would: who reaches this listener may see everything.
async fn ask(hub: &Hub, request: Request) -> Result<Reply, String> {
    let jobs = hub.jobs().ok_or_else(|| "the base is starting".to_owned())?;
    let name = Name::new("http").map_err(|error| error.to_string())?;
    match jobs.handle(&Asker { role: Role::Operator, name }, request).await {
        Ok(Answer::Reply(reply)) => Ok(reply),
        Ok(Answer::Watch(_) | Answer::Resume(..)) => Err("events are not served here".to_owned()),
        Err(stopped) => Err(stopped.to_string()),
    }
}

fn without_nodes(view: &shared::view::JobView) -> Value {
    let mut value = json!(view);
    if let Some(object) = value.as_object_mut() {
        object.remove("nodes");
    }
    value
}

fn problem(answer: Result<Reply, String>) -> Response {
    let (status, text) = match answer {
        Ok(Reply::Refused(refusal)) => (StatusCode::NOT_FOUND, refusal.text),
        Ok(_) => (StatusCode::INTERNAL_SERVER_ERROR, "an answer to another question".to_owned()),
        Err(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
    };
    (status, Json(json!({ "v": VERSION, "error": text }))).into_response()
}
