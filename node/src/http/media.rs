//! What kind of content a name tells of.

/// Said of everything whose name does not tell: the bytes as they are.
const PLAIN_BYTES: &str = "application/octet-stream";

/// The media type of an object called `name`. Only what a reader can play, show or load by it, and
/// nothing that a browser would run as a page of this node.
pub(super) fn of(name: &str) -> &'static str {
    let leaf = name.rsplit('/').next().unwrap_or(name);
    let Some((_, ending)) = leaf.rsplit_once('.') else { return PLAIN_BYTES };
    match ending.to_ascii_lowercase().as_str() {
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "gif" => "image/gif",
        "jpeg" | "jpg" => "image/jpeg",
        "json" => "application/json",
        "m3u8" => "application/vnd.apple.mpegurl",
        "m4a" => "audio/mp4",
        "m4s" | "mp4" => "video/mp4",
        "mp3" => "audio/mpeg",
        "mpd" => "application/dash+xml",
        "ogg" => "application/ogg",
        "png" => "image/png",
        "ts" => "video/mp2t",
        "txt" | "log" => "text/plain; charset=utf-8",
        "wav" => "audio/wav",
        "webm" => "video/webm",
        "webp" => "image/webp",
        _ => PLAIN_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ending_of_the_last_component_tells() {
        assert_eq!(of("on/air.ts"), "video/mp2t");
        assert_eq!(of("A.MP4"), "video/mp4");
        for name in ["stream", "a.ts/b", "page.html", "drawing.svg", ".", "a."] {
            assert_eq!(of(name), PLAIN_BYTES, "{name}");
        }
    }
}
