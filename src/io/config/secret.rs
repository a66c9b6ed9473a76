//! Secrets: a plain string, `{ file }`, `{ credential }` (systemd), `{ env, default }`. They are resolved once, while the
//! configuration is read, and never printed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::dom::Node;
use super::problem::{Place, Problem};

/// Largest secret that a file may hold.
const MAX_SECRET: u64 = 4096;
/// A SIP password that others can reach has at least so many characters.
const MIN_PASSWORD: usize = 12;

/// Environment variables, as the process sees them or as a test says.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Resolved secrets by the place of their value.
pub type Secrets = BTreeMap<Place, String>;

/// What a secret is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use<'a> {
    /// The SIP password of this extension.
    Extension(Option<&'a str>),
    /// The digest password that a carrier gave.
    Trunk,
    /// A token or a webhook's key.
    Other,
}

/// Reads the secrets of one configuration.
pub struct Reader<'a> {
    /// Environment.
    pub env: Environment<'a>,
    /// The folder of the file that a place is in.
    pub folder: &'a dyn Fn(Place) -> PathBuf,
    /// The first listener that is not on loopback, as it stands in the file; defaults and short passwords are refused then.
    pub exposed: Option<(String, Place)>,
}

impl Reader<'_> {
    /// Reads one; what is wrong with it is reported.
    pub fn read(&self, node: &Node, what: Use<'_>, secrets: &mut Secrets, problems: &mut Vec<Problem>) {
        match self.resolve(node) {
            Ok(secret) => {
                problems.extend(self.weak(node, what, &secret));
                secrets.insert(node.at, secret);
            }
            Err(problem) => problems.extend(problem),
        }
    }

    /// The secret; `Err(None)` where the walk has complained about its form already.
    fn resolve(&self, node: &Node) -> Result<String, Option<Problem>> {
        let secret = if let Some(text) = node.text() {
            text.to_owned()
        } else if let Some(file) = node.get("file") {
            let path = (self.folder)(file.at).join(file.text().ok_or(None)?);
            self.from_file(file, &path)?
        } else if let Some(credential) = node.get("credential") {
            let name = credential.text().ok_or(None)?;
            let folder = (self.env)("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let problem = Problem::error("config::secret", credential.at, "there are no systemd credentials here");
                Some(problem.label("no $CREDENTIALS_DIRECTORY").help(format!(
                    "start by systemd with `LoadCredential={name}:/path`; to check by hand, set CREDENTIALS_DIRECTORY"
                )))
            })?;
            if name.contains('/') || name.starts_with('.') {
                let problem = Problem::error("config::secret", credential.at, "a credential is a name, not a path");
                return Err(Some(problem.help("write the name of `LoadCredential=NAME:/path`")));
            }
            self.from_file(credential, &Path::new(&folder).join(name))?
        } else if let Some(env) = node.get("env") {
            let name = env.text().ok_or(None)?;
            match ((self.env)(name), node.get("default").map(|d| (d.at, d.text()))) {
                (Some(secret), _) if !secret.is_empty() => secret,
                (_, Some((_, Some(default)))) if self.exposed.is_none() => default.to_owned(),
                (_, Some((at, Some(_)))) => return Err(Some(self.refused(at, name))),
                (_, Some((_, None))) => return Err(None),
                (_, None) => {
                    let problem = Problem::error("config::secret", env.at, format!("the variable {name} is not set"));
                    return Err(Some(
                        problem.label("not set").help(format!("set {name} in the environment of the server")),
                    ));
                }
            }
        } else {
            return Err(None);
        };
        if secret.is_empty() {
            let problem = Problem::error("config::secret", node.at, "the secret is empty").label("empty");
            return Err(Some(problem.help("an empty secret opens the door to everyone")));
        }
        Ok(secret)
    }

    fn from_file(&self, node: &Node, path: &Path) -> Result<String, Problem> {
        let wrong = |why: String| {
            Problem::error("config::secret", node.at, format!("{}: {why}", path.display()))
                .label("cannot be read")
                .help("the file holds the secret in its first line and is readable by the server's user")
        };
        let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
        if size > MAX_SECRET {
            return Err(wrong(format!("larger than {MAX_SECRET} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    fn refused(&self, at: Place, name: &str) -> Problem {
        let what = format!("{name} is not set, and its `default` counts only while everything listens on loopback");
        let problem = Problem::error("config::default_secret", at, what).label("known to everyone who has this file");
        let problem = problem.help(format!("set {name}, or use {{ file = \"…\" }}"));
        match &self.exposed {
            Some((bind, place)) => problem.other(*place, format!("{bind} is not loopback")),
            None => problem,
        }
    }

    fn weak(&self, node: &Node, what: Use<'_>, secret: &str) -> Option<Problem> {
        let (bind, place) = self.exposed.as_ref()?;
        let Use::Extension(number) = what else { return None };
        let why = if number == Some(secret) {
            "a SIP password equal to its extension".to_owned()
        } else if secret.chars().count() < MIN_PASSWORD {
            format!("a SIP password under {MIN_PASSWORD} characters")
        } else {
            return None;
        };
        let problem =
            Problem::error("config::weak_password", node.at, format!("{why} will be guessed")).label("too weak");
        Some(
            problem.other(*place, format!("{bind} is not loopback")).help("make a long one: `openssl rand -base64 18`"),
        )
    }
}
