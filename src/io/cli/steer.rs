//! `strowger reload`, `strowger drain` and `strowger page`.

use std::io::Read as _;
use std::path::PathBuf;

use serde_json::Value;

use super::{Fail, Office, complain};
use crate::io::api::client::ClientError;
use crate::media::wav::MAX_BYTES;

/// Arguments of `page`.
#[derive(Debug, clap::Args)]
pub struct PageArgs {
    /// The page's number.
    number: String,
    /// A WAV file of 8000 or 16000 samples a second: PCM, A-law or µ-law.
    file: PathBuf,
}

/// Has a file played over a page.
pub fn page(office: &Office, args: &PageArgs) -> Result<(), Fail> {
    let wrong = |why: &dyn std::fmt::Display| Fail::Usage(format!("{}: {why}", args.file.display()));
    if !args.number.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*".contains(&b)) {
        return Err(Fail::NotFound(format!("there is no page {}", args.number.escape_default())));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&args.file).map_err(|e| wrong(&e))?;
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|e| wrong(&e))?;
    if bytes.len() > MAX_BYTES {
        return Err(wrong(&format!("larger than {} MiB", MAX_BYTES >> 20)));
    }
    let answer = match office.client.send(&format!("/pages/{}", args.number), bytes) {
        Err(ClientError::Refused(why)) => return Err(wrong(&why)),
        other => other?,
    };
    let called = answer["with"].as_array().map_or(0, Vec::len);
    let id = answer["call"].as_str().unwrap_or_default();
    complain(&format!("{called} loudspeakers are called; `strowger call {id}` tells who heard it"));
    Ok(())
}

/// Has the server read its configuration again.
pub fn reload(office: &Office) -> Result<(), Fail> {
    let answer = match office.client.post("/reload") {
        Err(ClientError::Refused(why)) => return Err(Fail::Usage(why)),
        other => other?,
    };
    for note in answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        complain(note);
    }
    complain("the configuration is in force");
    Ok(())
}

/// Has the server end with its last call.
pub fn drain(office: &Office) -> Result<(), Fail> {
    let answer = office.client.post("/drain")?;
    complain(&match answer["calls"].as_u64() {
        Some(0) => "no call is in progress: the server ends".to_owned(),
        Some(1) => "no new calls: the server ends with the call that is in progress".to_owned(),
        Some(n) => format!("no new calls: the server ends with the last of {n} calls"),
        None => "no new calls: the server ends with the last one".to_owned(),
    });
    Ok(())
}
