//! Secrets: a plain string, `{ file }`, `{ credential }` (systemd), `{ env, default }`. They are resolved once, while the
//! configuration is read, and never printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
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
            Err(problem) => problems.extend(problem.map(|p| *p)),
        }
    }

    /// The secret; `Err(None)` where the walk has complained about its form already.
    fn resolve(&self, node: &Node) -> Result<String, Option<Box<Problem>>> {
        let secret = if let Some(text) = node.text() {
            text.to_owned()
        } else if let Some(file) = node.get("file") {
            let path = (self.folder)(file.at).join(file.text().ok_or(None)?);
            self.first_line(file, &path)?
        } else if let Some(credential) = node.get("credential") {
            let name = credential.text().ok_or(None)?;
            let folder = (self.env)("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let problem = Problem::error("config::secret", credential.at, "there are no systemd credentials here");
                let help =
                    format!("start by systemd with `LoadCredential={name}:/path`; by hand, set CREDENTIALS_DIRECTORY");
                Some(Box::new(problem.label("no $CREDENTIALS_DIRECTORY").help(help)))
            })?;
            if name.contains('/') || name.starts_with('.') {
                let problem = Problem::error("config::secret", credential.at, "a credential is a name, not a path");
                return Err(Some(Box::new(problem.help("write the name of `LoadCredential=NAME:/path`"))));
            }
            self.first_line(credential, &Path::new(&folder).join(name))?
        } else if let Some(env) = node.get("env") {
            let name = env.text().ok_or(None)?;
            match ((self.env)(name), node.get("default").map(|d| (d.at, d.text()))) {
                (Some(secret), _) if !secret.is_empty() => secret,
                (_, Some((_, Some(default)))) if self.exposed.is_none() => default.to_owned(),
                (_, Some((at, Some(_)))) => return Err(Some(Box::new(self.refused(at, name)))),
                (_, Some((_, None))) => return Err(None),
                (_, None) => {
                    let problem = Problem::error("config::secret", env.at, format!("the variable {name} is not set"));
                    let problem = problem.label("not set").help(format!("set {name} in the environment of the server"));
                    return Err(Some(Box::new(problem)));
                }
            }
        } else {
            return Err(None);
        };
        if secret.is_empty() {
            let problem = Problem::error("config::secret", node.at, "the secret is empty").label("empty");
            return Err(Some(Box::new(problem.help("an empty secret opens the door to everyone"))));
        }
        Ok(secret)
    }

    fn first_line(&self, node: &Node, path: &Path) -> Result<String, Box<Problem>> {
        let wrong = |why: String| {
            let problem = Problem::error("config::secret", node.at, format!("{}: {why}", path.display()));
            let help = "the file holds the secret in its first line and is readable by the server's user";
            Box::new(problem.label("cannot be read").help(help))
        };
        let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
        let mut text = String::new();
        file.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(|e| wrong(e.to_string()))?;
        if text.len() as u64 > MAX_SECRET {
            return Err(wrong(format!("larger than {MAX_SECRET} bytes")));
        }
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

    /// Passwords of extensions, with their numbers, that count only as long as nobody else can reach us: one warning for all.
    pub fn short(&self, extensions: &[(&str, &Node)], secrets: &Secrets, problems: &mut Vec<Problem>) {
        const SHOWN: usize = 5;
        // A default is not for others anyway.
        let own = |node: &Node| {
            node.get("default").is_none() || node.get("env").and_then(|e| (self.env)(e.text()?)).is_some()
        };
        let short = |(number, node): &&(&str, &Node)| {
            let secret = secrets.get(&node.at).filter(|_| own(node));
            secret.is_some_and(|secret| secret == number || secret.chars().count() < MIN_PASSWORD)
        };
        let found: Vec<&(&str, &Node)> = extensions.iter().filter(short).collect();
        let Some((first, node)) = found.first().filter(|_| self.exposed.is_none()) else { return };
        let others: Vec<&str> = found.iter().skip(1).take(SHOWN).map(|(number, _)| *number).collect();
        let more = match (others.len(), found.len() - 1 - others.len()) {
            (0, _) => String::new(),
            (_, 0) => format!(" (and of {})", others.join(", ")),
            (_, rest) => format!(" (and of {} and {rest} more)", others.join(", ")),
        };
        let what = format!("the SIP password of {first}{more} is its number or has under {MIN_PASSWORD} characters");
        let help = "this is refused as soon as any `listen` or [http] `bind` is not loopback; make long ones: `openssl rand -base64 18`";
        problems.push(Problem::warning("config::weak_password", node.at, what).label("too weak for others").help(help));
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
