//! Pushes standard input to all nodes as a live object, and says how that ended.
#![expect(clippy::print_stdout, reason = "a program that speaks to people")]

use client::{Client, ConnectOptions, Dimensions, EventBody};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(base), Some(identity)) = (args.next(), args.next()) else {
        return Err("usage: push_live BASE:PORT IDENTITY < STREAM".into());
    };
    let client = Client::connect(ConnectOptions::load(base, identity.as_ref())?).await?;
    let (mut writer, mut push) = client.push_live("stream", Dimensions::default()).await?;
    tokio::io::copy(&mut tokio::io::stdin(), &mut writer).await?;
    writer.finish().await?;
    while let Some(event) = push.next().await? {
        if let EventBody::Closed(job) = event.body {
            println!("{} {}", job.id, job.state.as_str());
        }
    }
    client.close().await;
    Ok(())
}
