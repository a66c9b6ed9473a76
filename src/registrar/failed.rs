//! Logins that failed, for the operator's log: who, from where, why, with what. The peer hears nothing of it: his answer is the
//! same whatever was wrong. Bounded in memory and in lines: a phone with an old password tries every minute, a scanner tries a
//! thousand names a second, and neither may bury what else the log has to say.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::base::{Instant, Lines};
use crate::sip::transport::Flow;
use crate::sip::{Message, Name};

/// Characters of a user name or User-Agent that are kept.
pub const TEXT: usize = 64;

/// One line of the log. User name and User-Agent are a stranger's words: to be escaped wherever they are written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoginFailed {
    /// The user name that was given.
    pub user: String,
    /// Where it came from.
    pub source: Flow,
    /// Why it failed.
    pub reason: String,
    /// User-Agent.
    pub user_agent: Option<String>,
    /// The same again since the last line of it.
    pub again: u32,
    /// Failures of anybody since the last line of all that were not told.
    pub untold: u32,
}

/// What was told, and when: by address, user name and reason.
#[derive(Default, Debug)]
pub struct Failed(Lines<(IpAddr, String, String)>);

impl Failed {
    /// A login of `user` failed. The line to write, if there is to be one.
    pub fn note(
        &mut self,
        now: Instant,
        flow: &Flow,
        msg: &Message,
        user: &str,
        reason: Cow<'_, str>,
    ) -> Option<LoginFailed> {
        let short = |text: &str| text.chars().take(TEXT).collect::<String>();
        let (user, reason) = (short(user), reason.into_owned());
        let line = self.0.note(now, (flow.remote.ip().to_canonical(), user.clone(), reason.clone()))?;
        let user_agent = msg.text(Name::UserAgent).map(short);
        Some(LoginFailed { user, source: *flow, reason, user_agent, again: line.again, untold: line.untold })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::base::lines::LINES;
    use crate::sip::Transport;

    #[test]
    fn each_failure_has_one_line_a_minute_and_all_together_have_a_limit() {
        let flow = |n: u8| Flow {
            transport: Transport::Udp,
            local: "192.0.2.1:5060".parse().expect("address"),
            remote: format!("198.51.100.{n}:5060").parse().expect("address"),
            conn: 0,
        };
        let text = "REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nMax-Forwards: 70\r\nFrom: <sip:a@x>;tag=1\r\n\
                    To: <sip:a@x>\r\nCall-ID: 1\r\nCSeq: 1 REGISTER\r\nUser-Agent: Tin Can\r\n\r\n";
        let msg = Message::parse(Bytes::from_static(text.as_bytes())).expect("a message");
        let mut failed = Failed::default();
        let at = |s: u64| Instant::from_micros(s * 1_000_000);
        let mut note = |s, n, user: &str, why: &'static str| failed.note(at(s), &flow(n), &msg, user, why.into());
        let told = |line: Option<LoginFailed>| line.map(|l| (l.user, l.again, l.untold));
        assert_eq!(told(note(1, 1, "121", "wrong password")), Some(("121".into(), 0, 0)));
        assert_eq!(told(note(2, 1, "121", "wrong password")), None, "the same within a minute");
        assert_eq!(told(note(3, 1, "121", "waits")), Some(("121".into(), 0, 1)), "another reason");
        assert_eq!(told(note(4, 2, "121", "wrong password")), Some(("121".into(), 0, 0)), "another address");
        assert_eq!(told(note(62, 1, "121", "wrong password")), Some(("121".into(), 1, 0)), "a minute later");
        let lines = (0..2000).filter(|n| note(70, 3, &format!("user{n}"), "unknown user").is_some()).count();
        assert!(lines <= LINES as usize, "{lines}");
        let long = "x".repeat(500);
        assert_eq!(told(note(200, 4, &long, "unknown user")).map(|l| l.0.len()), Some(TEXT));
    }
}
