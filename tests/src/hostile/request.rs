//! Requests and replies, and the texts that their parts are read from.

use shared::id::{JobId, Name};
use shared::job::{Quorum, Selector};
use shared::label;
use shared::limit;
use shared::manifest::check_object_name;
use shared::wire::message;
use shared::wire::request::{JobRef, Reply, Request};

use super::control::reread;

/// The first byte chooses: a request, a reply, or a text.
pub(super) fn run(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    match kind % 3 {
        0 => request(bytes),
        1 => drop(reread::<Reply>(bytes)),
        _ => drop(std::str::from_utf8(bytes).map(text)),
    }
}

fn request(bytes: &[u8]) {
    reread::<Request>(bytes);
    let Ok(Request::Create { dimensions, .. }) = message::decode(bytes) else { return };
    assert!((1..=limit::SELECTORS_MAX).contains(&dimensions.to.len()));
    assert!(dimensions.priority <= 9);
    assert!(dimensions.name.is_none_or(|name| !name.is_reserved()));
    for nodes in [0, 1, 3, 10_000] {
        assert!((1..=nodes.max(1)).contains(&dimensions.quorum.of(nodes)));
    }
}

fn text(text: &str) {
    if let Ok(name) = Name::new(text) {
        assert!((1..=64).contains(&name.as_str().len()));
    }
    if let Ok(id) = text.parse::<JobId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(job) = text.parse::<JobRef>() {
        assert_eq!(job.to_string(), text);
    }
    if let Ok(selector) = text.parse::<Selector>() {
        assert_eq!(selector.to_string().parse(), Ok(selector));
    }
    if let Ok(quorum) = text.parse::<Quorum>() {
        assert!((1..=7).contains(&quorum.of(7)));
    }
    if let Ok((key, value)) = label::parse(text) {
        assert_eq!(format!("{key}={value}"), text);
    }
    if check_object_name(text).is_ok() {
        assert!(text.len() <= limit::OBJECT_NAME_LEN_MAX && !text.starts_with('/'));
        assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..")));
        assert!(text.split('/').all(|part| part.len() <= limit::COMPONENT_LEN_MAX));
        assert!(!text.chars().any(char::is_control));
    }
}
