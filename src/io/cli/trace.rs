//! `strowger trace`: the last SIP messages that belong to no call, from the memory that `call ID --ladder` reads too.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use super::output::{self, plain};
use super::{Fail, Office, complain};
use crate::b2bua::ladder::{MAX_TRACED, Traced};
use crate::base::Wall;
use crate::io::ladder;

/// How often it is asked what is new.
const AGAIN: Duration = Duration::from_millis(500);

/// Options.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only to and from this IP address.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Only with this number in From or To.
    #[arg(long, value_name = "NUMBER")]
    extension: Option<String>,
    /// Also the messages of calls.
    #[arg(long)]
    calls: bool,
    /// So many messages at most, the last ones.
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=MAX_TRACED as i64))]
    last: u16,
    /// Goes on until Ctrl-C with those that come.
    #[arg(long, short)]
    follow: bool,
    /// The whole messages.
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// One JSON object a message.
    #[arg(long)]
    json: bool,
}

/// Shows messages.
pub fn run(office: &Office, args: &Args) -> Result<(), Fail> {
    let mut wanted = Traced {
        address: args.address,
        extension: args.extension.clone(),
        calls: args.calls,
        after: 0,
        limit: usize::from(args.last),
    };
    let time = office.column("TIME");
    let width = time.chars().count();
    let mut head = (!args.full && !args.json).then(|| row(width, &time, "PEER", "", "MESSAGE", "FROM", "TO"));
    loop {
        let found = office.client.get(&format!("/trace?{}", output::query(&wanted)))?;
        let messages = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        if messages.is_empty() && !args.follow {
            complain("no such message is kept (`ladder` in [node] says how much is; those of calls: --calls)");
        }
        for message in messages {
            if let Some(head) = head.take() {
                output::say(&head)?;
            }
            match (args.json, args.full) {
                (true, _) => output::json(message)?,
                (false, true) => output::say(&whole(office, message))?,
                (false, false) => output::say(&line(office, width, message))?,
            }
        }
        if !args.follow {
            return Ok(());
        }
        (wanted.after, wanted.limit) = (found["next"].as_u64().unwrap_or(wanted.after), MAX_TRACED);
        std::thread::sleep(AGAIN);
    }
}

fn at(office: &Office, message: &Value) -> String {
    let at = message["at"].as_str().and_then(|at| Wall::try_from(at.to_owned()).ok());
    at.map(|at| office.time(at, "%H:%M:%S%.3f")).unwrap_or_default()
}

fn line(office: &Office, width: usize, message: &Value) -> String {
    let text = message["message"].as_str().unwrap_or_default();
    let arrow = if message["sent"] == true { "<──" } else { "──>" };
    let peer = message["remote"].as_str().unwrap_or_default();
    let (from, to) = (user(text, "from", "f"), user(text, "to", "t"));
    row(width, &at(office, message), peer, arrow, &ladder::name(text), &from, &to)
}

/// Columns that go on below each other while messages come.
fn row(width: usize, time: &str, peer: &str, arrow: &str, message: &str, from: &str, to: &str) -> String {
    let line = format!("{time:<width$}  {peer:<22} {arrow:<4} {message:<34}  {from:<16}  {to}");
    format!("{}\n", plain(line.trim_end()))
}

fn whole(office: &Office, message: &Value) -> String {
    let text = message["message"].as_str().unwrap_or_default();
    let way = if message["sent"] == true { "to" } else { "from" };
    let head = format!("{} {way} {}", at(office, message), message["remote"].as_str().unwrap_or_default());
    let lines: String = text.trim_end().lines().map(|line| format!("  {}\n", plain(line))).collect();
    format!("{head}\n{lines}\n")
}

/// Who stands in From or To: the user, else the host.
fn user(message: &str, name: &str, short: &str) -> String {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let its = |key: &str| [name, short].iter().any(|known| key.trim_end().eq_ignore_ascii_case(known));
    let mut values = head.lines().filter_map(|line| line.split_once(':').filter(|(key, _)| its(key)));
    let value = values.next().map_or("", |(_, value)| value);
    let uri = value.split_once("sip:").or_else(|| value.split_once("sips:")).map_or("", |(_, uri)| uri);
    let end = uri.find([';', '>', '@', ' ']).unwrap_or(uri.len());
    uri[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_in_from_and_to() {
        for (message, from, to) in [
            ("REGISTER sip:x SIP/2.0\r\nFrom: \"A\" <sip:121@x>;tag=1\r\nt: sip:x;p=1\r\n\r\n", "121", "x"),
            ("X\r\nTO : <sips:122@x>\r\n\r\nFrom: <sip:9@x>", "", "122"),
            ("", "", ""),
        ] {
            assert_eq!((user(message, "from", "f"), user(message, "to", "t")), (from.to_owned(), to.to_owned()));
        }
    }
}
