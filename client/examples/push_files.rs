//! Pushes files and directories to all nodes, and says how that ended.
#![expect(clippy::print_stdout, reason = "a program that speaks to people")]

use client::{Client, ConnectOptions, Dimensions, EventBody, tree};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(base), Some(identity)) = (args.next(), args.next()) else {
        return Err("usage: push_files BASE:PORT IDENTITY PATH...".into());
    };
    let plan = tree::plan(&args.collect::<Vec<_>>(), false)?;
    let client = Client::connect(ConnectOptions::load(base, identity.as_ref())?).await?;
    let mut push = client.push(plan, Dimensions::default()).await?;
    while let Some(event) = push.next().await? {
        if let EventBody::Closed(job) = event.body {
            println!("{} {}", job.id, job.state.as_str());
        }
    }
    client.close().await;
    Ok(())
}
