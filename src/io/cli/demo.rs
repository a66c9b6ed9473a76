//! `strowger demo`.

use std::io::IsTerminal as _;

use super::Fail;
use super::log::Log;
use crate::io::demo::{DemoError, Options, Sabotage};

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ends after the last scene: 0 only if every call did what it says.
    #[arg(long)]
    once: bool,
    /// One JSON object a scene.
    #[arg(long)]
    json: bool,
    /// Shows each call's messages.
    #[arg(long)]
    ladder: bool,
    /// Breaks something on purpose, to see that the demo notices.
    #[arg(long, value_name = "WHAT")]
    sabotage: Option<Break>,
    #[command(flatten)]
    log: Log,
}

/// What can be broken.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Break {
    /// A telephone speaks another tone than it should.
    Tone,
}

/// Plays the day.
pub fn run(args: &Args) -> Result<(), Fail> {
    args.log.begin("warn")?;
    let sabotage = args.sabotage.map(|Break::Tone| Sabotage::Tone);
    let options = Options { once: args.once, json: args.json, ladder: args.ladder, sabotage };
    let mut out = std::io::stdout();
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match crate::io::demo::run(options, &mut out, colour) {
        Ok(true) => Ok(()),
        // The demo has said what.
        Ok(false) => Err(Fail::Failed(String::new())),
        Err(DemoError::Io(error)) => Err(error.into()),
        Err(error) => Err(Fail::Failed(error.to_string())),
    }
}
