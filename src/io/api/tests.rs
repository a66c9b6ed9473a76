//! The socket from both ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::{Client, ClientError};
use super::*;
use crate::io::store::Numbers;
use crate::registrar::Binding;

#[derive(Clone, Default)]
struct Fake {
    draining: Arc<AtomicBool>,
}

struct NoRecords;

impl Reader for NoRecords {
    fn records(&mut self, _: &Filter) -> Result<Vec<(Cursor, CallRecord)>, StoreError> {
        Ok(Vec::new())
    }
    fn record(&mut self, _: RecordId) -> Result<Option<CallRecord>, StoreError> {
        Ok(None)
    }
    fn bindings(&mut self) -> Result<Vec<Binding>, StoreError> {
        Ok(Vec::new())
    }
    fn numbers(&mut self, _: Wall, _: usize) -> Result<Vec<Numbers>, StoreError> {
        Ok(Vec::new())
    }
}

impl Control for Fake {
    fn calls(&self) -> Vec<LiveCall> {
        Vec::new()
    }
    fn call(&self, _: RecordId) -> Option<LiveCall> {
        None
    }
    fn phones(&self) -> Vec<PhoneView> {
        vec![PhoneView {
            extension: "121".to_owned(),
            name: "Anna".to_owned(),
            registered: true,
            contact: "sip:121@127.0.0.1:5070".to_owned(),
            transport: "udp".to_owned(),
            source: "127.0.0.1:5070".to_owned(),
            user_agent: None,
            expires_at: Wall::default(),
            trouble: None,
            trouble_until: None,
            unanswered_at: None,
        }]
    }
    fn away(&self) -> Vec<Away> {
        let (extension, name) = ("120".to_owned(), "Boris".to_owned());
        vec![Away { extension, name, registered: false, last: None }]
    }
    fn trunks(&self) -> Vec<TrunkView> {
        Vec::new()
    }
    fn status(&self) -> Answer {
        Box::pin(async { json!({ "calls": 0 }) })
    }
    fn ask(&self, ask: Ask) -> Answer {
        let answer = match ask {
            Ask::Ladder(RecordId(1)) => json!({ "messages": [] }),
            Ask::Trace(wanted) => json!({ "items": [wanted], "next": 9 }),
            Ask::Page { page, sound } if *page == *"700" => json!({ "call": "X", "with": [sound.to_string()] }),
            Ask::Page { .. } => json!({ "error": "there is no such page" }),
            _ => Value::Null,
        };
        Box::pin(async move { answer })
    }
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(NoRecords))
    }
    fn import(&self) -> Result<Value, String> {
        Ok(json!({ "contacts": 3 }))
    }
    fn reload(&self) -> Result<Vec<String>, String> {
        Err("office.toml:3: config::unknown_key".to_owned())
    }
    fn put_sound(&self, _: &str, file: &[u8]) -> Result<(), String> {
        if file == b"RIFF" { Ok(()) } else { Err("not a WAV file".to_owned()) }
    }
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_socket_answers() {
    let folder = std::env::temp_dir().join(format!("strowger-api-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let socket = folder.join(SOCKET);
    // What a dead server left is in nobody's way.
    let _ = std::fs::remove_file(&socket);
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a stale socket"));
    let client = Client::new(&socket);
    assert!(matches!(client.get("/phones"), Err(ClientError::Unreachable { .. })));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let fake = Fake::default();
    {
        let _inside = runtime.enter();
        serve(&socket, fake.clone()).expect("served");
    }
    let mode = std::fs::metadata(&socket).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let phones = client.get("/phones").expect("phones");
    let shown = |i: usize| (phones["items"][i]["extension"].clone(), phones["items"][i]["registered"].clone());
    assert_eq!((shown(0), shown(1)), ((json!("120"), json!(false)), (json!("121"), json!(true))));
    let traced = client.get("/trace?address=192.0.2.7&calls=true&after=3").expect("traced");
    assert_eq!(traced["items"][0], json!({ "address": "192.0.2.7", "calls": true, "after": 3, "limit": 1000 }));
    assert!(matches!(client.get("/trace?address=everywhere"), Err(ClientError::Refused(_))));
    assert_eq!(client.get("/status").expect("status")["calls"], 0);
    assert_eq!(client.get("/records?since=2026-11-22T00:00:00Z&outcome=missed").expect("records")["items"], json!([]));
    assert!(matches!(client.get("/records?since=yesterday"), Err(ClientError::Refused(_))));
    assert!(matches!(client.get("/calls/nonsense"), Err(ClientError::NotFound(_))));
    let (first, second) = (RecordId(1), RecordId(2));
    assert!(matches!(client.get(&format!("/calls/{first}")), Err(ClientError::NotFound(_))));
    assert!(client.get(&format!("/calls/{first}/ladder")).is_ok());
    assert!(matches!(client.get(&format!("/calls/{second}/ladder")), Err(ClientError::NotFound(_))));
    assert!(matches!(client.post("/reload"), Err(ClientError::Refused(why)) if why.contains("unknown_key")));
    assert_eq!(client.send("/pages/700", b"RIFF".to_vec()).expect("paged")["with"], json!(["page:700"]));
    assert!(matches!(client.send("/pages/701", b"RIFF".to_vec()), Err(ClientError::NotFound(_))));
    assert!(
        matches!(client.send("/pages/700", b"MP3".to_vec()), Err(ClientError::Refused(why)) if why.contains("WAV"))
    );
    assert!(!fake.draining.load(Ordering::Relaxed));
    client.post("/drain").expect("draining");
    assert!(fake.draining.load(Ordering::Relaxed));
    drop(runtime);
    let _ = std::fs::remove_dir_all(&folder);
}
