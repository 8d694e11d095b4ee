//! Runs a hub until it is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use leno_hub::config::Config;
use leno_hub::http;
use leno_hub::hub::Hub;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// An always-on peer that carries threads for others and cannot read them.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The file that says what the hub is to be like.
    #[arg(long, default_value = "hub.toml")]
    config: PathBuf,
    /// Only read the file and say what is wrong with it.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter =
        EnvFilter::try_from_env("LENO_LOG").unwrap_or_else(|_| EnvFilter::new("leno_hub=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::read(&arguments.config)?;
    if arguments.check {
        println!("{} is good", arguments.config.display());
        return Ok(());
    }
    let listener = TcpListener::bind(config.control).await?;
    let control = listener.local_addr()?;
    // If any free port was asked for, it is known now, and web sockets are announced at it.
    config.control = control;
    // Before anybody is told that the hub is there.
    let stop = stop()?;
    let hub = Hub::start(config).await?;
    // One line that a script can read: where the hub is, once it is there.
    let ready = serde_json::json!({
        "control": control,
        "peer": hub.peer().id().to_string(),
        "addresses": hub.addresses(),
    });
    println!("{ready}");
    let served = http::serve(listener, hub.clone(), stop).await;
    hub.close().await?;
    Ok(served?)
}

/// Listens from now on for being asked to end; what it returns resolves then.
fn stop() -> std::io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        // Without the signal there is nothing to wait for but the end of the process.
        let _ = tokio::signal::ctrl_c().await;
    })
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
