//! Checks of JSON objects: the fields that were promised, each with its type. More fields
//! are allowed, as new ones may come.

use jiff::Timestamp;
use serde_json::Value;

/// The fields of `job show` without `nodes`.
pub(crate) const JOB: &str = "v:one id:text name:text kind:text state:text reason:text? \
    size:count? bytes:count digest:text? created_at:time deadline:time? closed_at:time?";
/// The fields of a node in `job show`.
pub(crate) const JOB_NODE: &str = "name:text state:text bytes:count rate_bps:count \
    upstreams:list sources:list completed_at:time? reason:text?";
/// The fields of every event.
pub(crate) const EVENT: &str = "v:one event:text job:text at:time";
/// The fields of a node in `nodes`.
pub(crate) const NODE: &str =
    "name:text address:text labels:object state:text jobs:count rtt_ms:number?";

/// Fails unless `object` has the `fields`: names with `:` and a type, `?` if it may be null.
#[track_caller]
pub(crate) fn assert_fields(object: &Value, fields: &str) {
    for field in fields.split_whitespace() {
        let (name, kind) = field.split_once(':').unwrap();
        let Some(value) = object.get(name) else { panic!("{name} is missing in {object}") };
        let (kind, or_null) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
        let fits = is(value, kind) || (or_null && value.is_null());
        assert!(fits, "{name} is no {kind} in {object}");
    }
}

/// Fails unless `job` is what `job show` promises, nodes and all.
#[track_caller]
pub(crate) fn assert_shown(job: &Value) {
    assert_fields(job, JOB);
    for node in list(job, "nodes") {
        assert_fields(node, JOB_NODE);
    }
}

/// The list in a field.
#[track_caller]
pub(crate) fn list<'a>(object: &'a Value, name: &str) -> &'a Vec<Value> {
    object[name].as_array().unwrap_or_else(|| panic!("{name} is no list in {object}"))
}

/// The element of the list `nodes` that is called `name`.
#[track_caller]
pub(crate) fn node<'a>(object: &'a Value, name: &str) -> &'a Value {
    let found = list(object, "nodes").iter().find(|node| node["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is not in {object}"))
}

/// A text field.
#[track_caller]
pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {object}"))
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "one" => *value == 1,
        "text" => value.is_string(),
        "count" => value.is_u64(),
        "number" => value.is_number(),
        "list" => value.is_array(),
        "object" => value.is_object(),
        "time" => value.as_str().is_some_and(|text| {
            text.ends_with('Z') && text.contains('T') && text.parse::<Timestamp>().is_ok()
        }),
        other => panic!("{other} is no type"),
    }
}
