//! `strowger reload` and `strowger drain`.

use serde_json::Value;

use super::{Fail, Office, complain};
use crate::io::api::client::ClientError;

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
