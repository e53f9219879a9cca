//! Whether a peer is still there: a process that was killed says nothing of its end.

use std::time::Duration;

use shared::wire::codec;
use shared::wire::message::{Acks, FrameType};
use shared_io::link::Link;

/// A peer that acknowledges nothing for so long is gone. A living one does within a round trip.
const PATIENCE: Duration = Duration::from_secs(2);
/// What waits in the socket's buffer may be older than the question.
const AFTER: Duration = Duration::from_millis(100);
/// How often it is looked for.
const EVERY: Duration = Duration::from_millis(20);

/// Whether the peer of `link` acknowledges what it is sent now.
pub(crate) async fn answers(link: &Link) -> bool {
    let acknowledged = || link.connection().stats().frame_rx.acks;
    let answer = async {
        tokio::time::sleep(AFTER).await;
        let before = acknowledged();
        link.send_frame(FrameType::Acks, &codec::encode(&Acks(Vec::new())));
        while acknowledged() == before {
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        biased;
        () = link.ended() => false,
        answered = tokio::time::timeout(PATIENCE, answer) => answered.is_ok(),
    }
}
