//! The command line's side of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// How long an answer may take; a reload reads files.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no server answers at {}: {why}", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        why: String,
    },
    /// Somebody may listen there, and this user may not ask him.
    #[error("this user may not open {}: {why}", .socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
        /// What the system says.
        why: String,
    },
    /// There is none such.
    #[error("{0}")]
    NotFound(String),
    /// It was refused.
    #[error("{0}")]
    Refused(String),
}

/// A server to ask.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The server with this socket.
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// Asks. `path` with its query.
    pub fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.request(Method::GET, path, Vec::new())
    }

    /// Tells.
    pub fn post(&self, path: &str) -> Result<Value, ClientError> {
        self.request(Method::POST, path, Vec::new())
    }

    /// Tells, with a file.
    pub fn send(&self, path: &str, file: Vec<u8>) -> Result<Value, ClientError> {
        self.request(Method::POST, path, file)
    }

    fn request(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
        let unreachable = |why: String| ClientError::Unreachable { socket: self.socket.clone(), why };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| unreachable(e.to_string()))?;
        let talk = async { tokio::time::timeout(PATIENCE, self.talk(method, path, body)).await };
        let talked = runtime.block_on(talk);
        match talked {
            Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ClientError::Denied { socket: self.socket.clone(), why: error.to_string() })
            }
            Ok(Ok((status, body))) => {
                answer(status, &body).unwrap_or_else(|| Err(unreachable("its answer makes no sense".to_owned())))
            }
            Ok(Err(why)) => Err(unreachable(why.to_string())),
            Err(_) => Err(unreachable(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    async fn talk(&self, method: Method, path: &str, body: Vec<u8>) -> io::Result<(u16, Bytes)> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "strowger");
        let request = request.body(Full::new(Bytes::from(body))).map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(io::Error::other)?;
        Ok((status, body.to_bytes()))
    }
}

fn answer(status: u16, body: &[u8]) -> Option<Result<Value, ClientError>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    if (200..300).contains(&status) {
        return Some(Ok(value));
    }
    let detail = value.get("detail").and_then(Value::as_str).unwrap_or("the server refused").to_owned();
    Some(Err(if status == 404 { ClientError::NotFound(detail) } else { ClientError::Refused(detail) }))
}
