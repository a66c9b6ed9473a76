//! The words in which a hook is asked and answers: our own, and those of three Russian providers, so that scripts written
//! for their "request on incoming call" run unchanged. Text in, text out; nothing is sent here.
//!
//! What the providers' pages do not say is documented as chosen in docs/hooks.md.

use base64::Engine as _;
use hmac::{Hmac, Mac as _};
use serde_json::{Map, Value, json};
use sha1::Sha1;

use crate::directory::{Hook, Label, Shape, Step};
use crate::policy::hook::{Answer, MAX_STEPS, MAX_TAGS, MAX_TEXT, Outcome, Question};

/// How deep an answer is searched for numbers to ring.
const MAX_DEPTH: u8 = 6;
/// Longest number that is an extension of a company's own, in digits.
const MAX_EXTENSION: usize = 6;

/// A request to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Where, the query included.
    pub url: String,
    /// POST with this type and body; none: GET.
    pub body: Option<(&'static str, String)>,
    /// One more header.
    pub header: Option<(&'static str, String)>,
}

/// Turns one step of an answer, a target or a table with one, into a step.
pub type ReadStep<'a> = &'a dyn Fn(&Value) -> Result<Step, String>;

/// The request that asks `question`.
pub fn request(hook: &Hook, question: &Question) -> Request {
    let url = hook.url.to_string();
    let (caller, called) = (bare(question.caller.as_deref().unwrap_or("")), bare(&question.called));
    match &hook.shape {
        Shape::Strowger => {
            let body = json!({
                "v": 1, "call": question.call, "caller": question.caller, "called": question.called, "campaign": question.campaign,
                "category": question.category, "region": question.region, "anonymous": question.anonymous,
                "at": question.at.to_string(),
            });
            Request { url, body: Some(("application/json", body.to_string())), header: None }
        }
        Shape::Sipuni { label, .. } => {
            let time = question.at.unix().to_string();
            let query =
                form(&[("fromnum", caller), ("tonum", called), ("dtmf", ""), ("label", label), ("time", &time)]);
            let joint = if url.contains('?') { '&' } else { '?' };
            Request { url: format!("{url}{joint}{query}"), body: None, header: None }
        }
        Shape::Exolve => {
            let body = json!({
                "jsonrpc": "2.0", "id": 1, "method": "getControlCallFollowMe",
                "params": { "sip_id": called, "numberA": caller, "call_sid": question.call },
            });
            Request { url, body: Some(("application/json", body.to_string())), header: None }
        }
        Shape::Zadarma { secret } => {
            let start = question.at.timestamp().strftime("%Y-%m-%d %H:%M:%S").to_string();
            let fields = [
                ("event", "NOTIFY_START"),
                ("call_start", &start),
                ("pbx_call_id", &question.call),
                ("caller_id", caller),
                ("called_did", called),
            ];
            let signature = secret.as_ref().map(|s| ("Signature", signature(&s.0, &[caller, called, &start])));
            Request { url, body: Some(("application/x-www-form-urlencoded", form(&fields))), header: signature }
        }
    }
}

/// What an answer with this status and body means.
pub fn answer(hook: &Hook, status: u16, body: &[u8], read: ReadStep<'_>) -> Outcome {
    match status {
        204 => return Ok(None),
        200 => {}
        _ => return Err(format!("it answered {status}")),
    }
    let value: Value = serde_json::from_slice(body).map_err(|e| format!("its answer is no JSON: {e}"))?;
    match &hook.shape {
        Shape::Strowger => own(&value, read).map(Some),
        Shape::Sipuni { pick, is, first, second, .. } => {
            let found = value.pointer(pick).ok_or_else(|| format!("its answer has nothing at {pick}"))?;
            let to = if plain(found).as_deref() == Some(&**is) { first } else { second };
            Ok(Some(Answer { to: to.clone(), ..Answer::default() }))
        }
        Shape::Exolve => exolve(&value, read).map(Some),
        Shape::Zadarma { .. } => zadarma(&value, read),
    }
}

fn own(value: &Value, read: ReadStep<'_>) -> Result<Answer, String> {
    const KEYS: [&str; 5] = ["to", "caller_name", "tags", "card_url", "record"];
    let table = value.as_object().ok_or("its answer is no object")?;
    if let Some(key) = table.keys().find(|k| !KEYS.contains(&k.as_str())) {
        return Err(format!("its answer has an unknown key `{}`", shorten(key)));
    }
    let steps = match table.get("to") {
        Some(Value::Array(steps)) => steps.as_slice(),
        Some(step @ (Value::String(_) | Value::Object(_))) => std::slice::from_ref(step),
        Some(_) => return Err("its `to` is no list of steps".to_owned()),
        None => &[],
    };
    let to = steps.iter().take(MAX_STEPS).map(read).collect::<Result<_, _>>()?;
    let record = match table.get("record") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(record)) => Some(*record),
        Some(Value::String(mode)) if mode == "all" || mode == "none" => Some(mode == "all"),
        Some(_) => return Err("its `record` is neither true, false, \"all\" nor \"none\"".to_owned()),
    };
    let tags = match table.get("tags") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(tags)) => tags.iter().filter_map(tag).take(MAX_TAGS).collect(),
        Some(_) => return Err("its `tags` are no object".to_owned()),
    };
    Ok(Answer { to, caller_name: text(table, "caller_name")?, tags, card_url: text(table, "card_url")?, record })
}

/// `redirect_type` 1: the first number, 2: one after the other, 3: all at once.
fn exolve(value: &Value, read: ReadStep<'_>) -> Result<Answer, String> {
    if let Some(error) = value.get("error") {
        return Err(format!("it answered an error: {}", shorten(&error.to_string())));
    }
    let result = value.get("result").unwrap_or(value);
    let kind = result.get("redirect_type").and_then(|v| plain(v)?.parse::<u8>().ok()).unwrap_or(2);
    let mut found = Vec::new();
    numbers(result, 0, &mut found);
    found.sort_by_key(|(order, ..)| *order);
    if kind == 1 {
        found.truncate(1);
    }
    let mut to = Vec::new();
    for (i, (_, number, ring)) in found.into_iter().take(MAX_STEPS).enumerate() {
        let mut step = Map::new();
        step.insert("target".to_owned(), target(&number).into());
        if let Some(seconds) = ring.filter(|s| *s > 0) {
            step.insert("ring".to_owned(), format!("{seconds}s").into());
        }
        if kind == 3 && i > 0 {
            step.insert("after".to_owned(), "0s".into());
        }
        to.push(read(&Value::Object(step))?);
    }
    if to.is_empty() {
        return Err("its answer names no number".to_owned());
    }
    Ok(Answer { to, ..Answer::default() })
}

/// Every object with a number to ring: order, number, seconds.
fn numbers(value: &Value, depth: u8, found: &mut Vec<(u32, String, Option<u32>)>) {
    if depth > MAX_DEPTH || found.len() >= MAX_STEPS {
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| numbers(item, depth + 1, found)),
        Value::Object(table) => {
            let get = |name: &str| table.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).and_then(|(_, v)| plain(v));
            let order = get("i_follow_order").or_else(|| get("follow_order"));
            let active = get("active").is_none_or(|a| !a.eq_ignore_ascii_case("n"));
            match get("redirect_number").filter(|_| active) {
                Some(number) => {
                    let order = order.and_then(|o| o.parse().ok()).unwrap_or(u32::MAX);
                    found.push((order, number, get("timeout").and_then(|t| t.parse().ok())));
                }
                None => table.values().for_each(|v| numbers(v, depth + 1, found)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `redirect` to an extension or number, or `blacklist`; `hangup`; `caller_name`; `return_timeout` in seconds.
fn zadarma(value: &Value, read: ReadStep<'_>) -> Outcome {
    let table = value.as_object().ok_or("its answer is no object")?;
    let caller_name = text(table, "caller_name")?;
    let get = |key: &str| table.get(key).and_then(plain);
    let refused = get("hangup").is_some_and(|h| h != "0" && h != "false");
    let mut step = Map::new();
    match get("redirect").as_deref() {
        _ if refused => step.insert("target".to_owned(), "reject:603".into()),
        Some("blacklist") => step.insert("target".to_owned(), "reject:486".into()),
        Some(to) => step.insert("target".to_owned(), target(to).into()),
        None if caller_name.is_some() => return Ok(Some(Answer { caller_name, ..Answer::default() })),
        None => return Ok(None),
    };
    if let Some(seconds) = get("return_timeout").and_then(|t| t.parse::<u32>().ok()).filter(|s| *s > 0) {
        step.insert("ring".to_owned(), format!("{seconds}s").into());
    }
    Ok(Some(Answer { to: vec![read(&Value::Object(step))?], caller_name, ..Answer::default() }))
}

/// A target of ours for what a provider calls a number: short ones are extensions, those with a colon targets already.
fn target(text: &str) -> String {
    let digits = bare(text);
    match text {
        _ if text.contains(':') => text.to_owned(),
        _ if digits.len() > MAX_EXTENSION => format!("number:+{digits}"),
        _ => format!("extension:{text}"),
    }
}

/// A text or number as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn text(table: &Map<String, Value>, key: &str) -> Result<Option<Label>, String> {
    match table.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() > MAX_TEXT => {
            Err(format!("its `{key}` is longer than {MAX_TEXT} bytes"))
        }
        Some(Value::String(text)) if text.chars().any(char::is_control) => {
            Err(format!("its `{key}` holds a control character"))
        }
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|t| !t.is_empty()).map(Label::from)),
        Some(_) => Err(format!("its `{key}` is no text")),
    }
}

fn tag((key, value): (&String, &Value)) -> Option<(Label, Label)> {
    let value = plain(value)?;
    (key.len() <= MAX_TEXT && value.len() <= MAX_TEXT).then(|| (key.as_str().into(), value.as_str().into()))
}

/// A number as providers write it: no plus.
fn bare(number: &str) -> &str {
    number.strip_prefix('+').unwrap_or(number)
}

fn form(fields: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(fields).finish()
}

/// Base 64 of the hexadecimal HMAC-SHA1, as their PHP samples make it.
fn signature(secret: &str, parts: &[&str]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part.as_bytes()));
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    base64::engine::general_purpose::STANDARD.encode(hex)
}

fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Wall;
    use crate::directory::{Secret, Target};

    fn question() -> Question {
        Question {
            call: "01J".to_owned(),
            caller: Some("+79131234567".to_owned()),
            called: "+73833000001".to_owned(),
            campaign: Some("site".to_owned()),
            category: Some("regular".to_owned()),
            region: None,
            anonymous: false,
            at: Wall::from_micros(1_700_000_000_000_000),
        }
    }

    fn hook(shape: Shape) -> Hook {
        Hook { shape, ..Hook::new("crm", "http://127.0.0.1:9000/route") }
    }

    /// Reads targets as far as these tests need them.
    fn read(value: &Value) -> Result<Step, String> {
        let text = value.get("target").unwrap_or(value).as_str().ok_or("no target")?;
        let target = match text.split_once(':') {
            Some(("extension", number)) => Target::Extension(number.into()),
            Some(("number", number)) => Target::Number(number.parse().map_err(|_| "no number")?),
            Some(("reject", status)) => Target::Reject(status.parse().map_err(|_| "no status")?),
            _ => return Err(format!("`{text}` is not a target")),
        };
        Ok(Step::to(target))
    }

    fn told(shape: Shape, status: u16, body: &str) -> String {
        match answer(&hook(shape), status, body.as_bytes(), &read) {
            Ok(None) => "go on".to_owned(),
            Ok(Some(answer)) => {
                let mut said: Vec<String> = answer.to.iter().map(|s| s.target.to_string()).collect();
                said.extend(answer.caller_name.map(|n| format!("name {n}")));
                said.extend(answer.tags.iter().map(|(k, v)| format!("{k}={v}")));
                said.extend(answer.record.map(|r| format!("record {r}")));
                said.join(", ")
            }
            Err(why) => format!("fault: {why}"),
        }
    }

    #[test]
    fn our_own_words() {
        let asked = request(&hook(Shape::Strowger), &question());
        let (kind, body) = asked.body.expect("a POST");
        assert_eq!(kind, "application/json");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let want = json!({
            "v": 1, "call": "01J", "caller": "+79131234567", "called": "+73833000001", "campaign": "site",
            "category": "regular", "region": null, "anonymous": false, "at": "2023-11-14T22:13:20.000Z",
        });
        assert_eq!(body, want);
        for (status, body, want) in [
            (204, "", "go on"),
            (200, r#"{"to":["extension:121","number:+79120000101"]}"#, "extension:121, number:+79120000101"),
            (200, r#"{"to":"extension:121","record":"none"}"#, "extension:121, record false"),
            (200, r#"{"to":[],"caller_name":" Ann ","tags":{"deal":7}}"#, "name Ann, deal=7"),
            (200, r#"{"caller_name":"A\r\nX-Evil: 1"}"#, "fault: its `caller_name` holds a control character"),
            (200, r#"{"too":["extension:121"]}"#, "fault: its answer has an unknown key `too`"),
            (200, r#"{"to":["teleport:121"]}"#, "fault: `teleport:121` is not a target"),
            (200, r#"{"to":5}"#, "fault: its `to` is no list of steps"),
            (200, r#"["extension:121"]"#, "fault: its answer is no object"),
            (500, "{}", "fault: it answered 500"),
            (302, "", "fault: it answered 302"),
        ] {
            assert_eq!(told(Shape::Strowger, status, body), want, "{status} {body}");
        }
        assert!(told(Shape::Strowger, 200, "<html>").starts_with("fault: its answer is no JSON"));
    }

    #[test]
    fn sipuni() {
        let shape = || Shape::Sipuni {
            label: "a b".into(),
            pick: "/choice".into(),
            is: "1".into(),
            first: vec![Step::to(Target::Extension("121".into()))],
            second: vec![Step::to(Target::Reject(486))],
        };
        let asked = request(&hook(shape()), &question());
        let want = "http://127.0.0.1:9000/route?fromnum=79131234567&tonum=73833000001&dtmf=&label=a+b&time=1700000000";
        assert_eq!((asked.url.as_str(), asked.body), (want, None));
        for (body, want) in [
            (r#"{"choice":"1"}"#, "extension:121"),
            (r#"{"choice":1}"#, "extension:121"),
            (r#"{"choice":"2"}"#, "reject:486"),
            (r#"{"other":"1"}"#, "fault: its answer has nothing at /choice"),
        ] {
            assert_eq!(told(shape(), 200, body), want, "{body}");
        }
    }

    #[test]
    fn exolve() {
        let asked = request(&hook(Shape::Exolve), &question()).body.expect("a POST").1;
        let asked: Value = serde_json::from_str(&asked).expect("JSON");
        assert_eq!(asked["method"], "getControlCallFollowMe");
        assert_eq!(asked["params"]["numberA"], "79131234567");
        let follow = r#"[2,[{"I_FOLLOW_ORDER":"2","ACTIVE":"Y","REDIRECT_NUMBER":"79120000102","TIMEOUT":"20"},
            {"I_FOLLOW_ORDER":"1","ACTIVE":"Y","REDIRECT_NUMBER":"121"},{"ACTIVE":"N","REDIRECT_NUMBER":"122"}]]"#;
        let body = |kind: u8| format!(r#"{{"id":1,"result":{{"redirect_type":{kind},"followme_struct":{follow}}}}}"#);
        assert_eq!(told(Shape::Exolve, 200, &body(2)), "extension:121, number:+79120000102");
        assert_eq!(told(Shape::Exolve, 200, &body(1)), "extension:121");
        assert_eq!(told(Shape::Exolve, 200, r#"{"result":{}}"#), "fault: its answer names no number");
        assert!(told(Shape::Exolve, 200, r#"{"error":{"code":1}}"#).starts_with("fault: it answered an error"));
    }

    #[test]
    fn zadarma() {
        let shape = || Shape::Zadarma { secret: Some(Secret("s3cret".into())) };
        let asked = request(&hook(shape()), &question());
        let want = "event=NOTIFY_START&call_start=2023-11-14+22%3A13%3A20&pbx_call_id=01J&caller_id=79131234567&called_did=73833000001";
        assert_eq!(asked.body, Some(("application/x-www-form-urlencoded", want.to_owned())));
        let (name, value) = asked.header.expect("signed");
        // printf '79131234567738330000012023-11-14 22:13:20' | openssl dgst -sha1 -hmac s3cret
        assert_eq!((name, value.len()), ("Signature", 56));
        for (body, want) in [
            (r#"{"redirect":"121","return_timeout":10}"#, "extension:121"),
            (r#"{"redirect":"79120000101","caller_name":"Ann"}"#, "number:+79120000101, name Ann"),
            (r#"{"redirect":"blacklist"}"#, "reject:486"),
            (r#"{"hangup":1}"#, "reject:603"),
            (r#"{"caller_name":"Ann"}"#, "name Ann"),
            ("{}", "go on"),
        ] {
            assert_eq!(told(shape(), 200, body), want, "{body}");
        }
    }
}
