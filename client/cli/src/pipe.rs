//! Standard input as the source of a live object.

use std::io::Read;

use client::LiveWriter;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use crate::exit::Failure;

/// Bytes that are read at a time: a chunk of a live object.
const READ_LEN: usize = 64 * 1024;

/// Passes standard input on to `writer` as it comes; its end is the end of the object.
///
/// Reading a pipe cannot be interrupted, so it is done by a thread that ends with the process,
/// or when the push does.
///
/// # Errors
/// [`Failure`] if the system gives no thread.
pub(crate) fn start(mut writer: LiveWriter) -> Result<(), Failure> {
    let runtime = Handle::current();
    let pass_on = move || {
        let mut buffer = vec![0; READ_LEN];
        loop {
            let read = match std::io::stdin().read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // Not an end: the publisher has not said that there is no more.
                Err(error) => {
                    tracing::error!(%error, "cannot read standard input; the object stays open");
                    return;
                }
            };
            let piece = buffer.get(..read).unwrap_or_default();
            if runtime.block_on(writer.write_all(piece)).is_err() {
                return;
            }
        }
        // Nobody waits for the end of a push that has ended by itself.
        runtime.block_on(writer.finish()).ok();
    };
    let thread = std::thread::Builder::new().name("stdin".to_owned()).spawn(pass_on);
    thread
        .map(drop)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))
}
