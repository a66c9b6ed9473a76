//! Session timers: RFC 4028 in both roles, as pure values. Nothing is sent from here; [`Session::due`] says when to refresh or to end.
//!
//! "UAC" and "UAS" are the roles in the one INVITE or UPDATE at hand: each refresh negotiates anew, and its sender is the UAC.
//!
//! ```text
//!  UAC                                        UAS
//!   | Session-Expires, Min-SE                  |
//!   |----------------------------------------->| answer()
//!   |                          422, Min-SE     |   too short
//!   |<-----------------------------------------|
//!   | raise(), a new request                   |
//!   |----------------------------------------->|
//!   |            2xx, Session-Expires;refresher|
//!   |<-----------------------------------------|
//!   | agreed()                                 |
//!   |                                          |
//!   | refresher: INVITE or UPDATE at half of it; the other: BYE shortly before the end if none has come
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::Instant;
use crate::sip::header::Refresher;

/// No session interval may be shorter, in seconds (RFC 4028 section 5).
pub const LEAST: u32 = 90;
/// The interval that we ask for, in seconds (RFC 4028 section 4 recommends it).
pub const USUAL: u32 = 1800;
/// The longest interval that we let a peer's Min-SE raise us to, in seconds. Above it there is no timer worth the name.
pub const LONGEST: u32 = 86_400;
/// How often a request is sent again because of 422: each proxy on the way may have its own Min-SE.
pub const RAISES: u8 = 5;

/// What we want.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// The interval that we ask for, in seconds.
    pub interval: u32,
    /// The shortest that we accept, in seconds, at least [`LEAST`].
    pub least: u32,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { interval: USUAL, least: LEAST }
    }
}

/// What the peer's request says about session timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// `Supported: timer` (or Require).
    pub supported: bool,
    /// Session-Expires: seconds, and who is to refresh.
    pub expires: Option<(u32, Option<Refresher>)>,
    /// Min-SE, in seconds.
    pub min_se: Option<u32>,
}

/// What we answer a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// 422 with this Min-SE.
    TooShort(u32),
    /// 2xx with `Session-Expires: expires;refresher=...`, and `Require: timer` if `require`.
    Accept {
        /// Seconds.
        expires: u32,
        /// Who refreshes; the UAC is the peer.
        refresher: Refresher,
        /// The peer understands, and has work to do.
        require: bool,
    },
}

/// What our request says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offered {
    /// Session-Expires, in seconds; no refresher is named, so that the peer may choose.
    pub expires: u32,
    /// Min-SE, in seconds; left out when it is [`LEAST`] and no 422 has come.
    pub min_se: Option<u32>,
    raises: u8,
}

/// A running session timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The interval, in seconds.
    pub expires: u32,
    /// Refreshing is our work.
    pub ours: bool,
    /// When to refresh; gone once [`Due::Refresh`] was reported.
    refresh: Option<Instant>,
    /// When to end.
    end: Instant,
}

/// What a session timer asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Send a refresh: UPDATE if the peer allows it, else INVITE. Reported once.
    Refresh,
    /// Send BYE: nobody has refreshed.
    End,
}

/// We are the UAS of an INVITE or UPDATE that will get a 2xx (RFC 4028 section 9).
pub fn answer(wish: Wish, asked: Asked) -> Answer {
    let least = wish.least.max(LEAST);
    match asked.expires {
        Some((expires, _)) if expires < least && asked.supported => Answer::TooShort(least),
        Some((expires, refresher)) => {
            // shorter than asked for if we like, never below what the UAC and the proxies allow, never longer (a too short wish of a proxy, for a UAC that
            // would not understand 422, is lengthened all the same: below 90 s is no interval)
            let floor = asked.min_se.unwrap_or(LEAST).max(least);
            let expires = if expires <= floor { expires.max(least) } else { expires.min(wish.interval.max(floor)) };
            let refresher = match (asked.supported, refresher) {
                // a UAC that does not understand cannot refresh
                (false, _) => Refresher::Uas,
                (true, Some(named)) => named,
                // the one who began knows best whether it is still there
                (true, None) => Refresher::Uac,
            };
            Answer::Accept { expires, refresher, require: asked.supported && refresher == Refresher::Uac }
        }
        None => {
            let expires = wish.interval.max(least).max(asked.min_se.unwrap_or(LEAST));
            let refresher = if asked.supported { Refresher::Uac } else { Refresher::Uas };
            Answer::Accept { expires, refresher, require: asked.supported }
        }
    }
}

impl Offered {
    /// We are the UAC: what to ask for (RFC 4028 section 7.1).
    pub fn new(wish: Wish) -> Offered {
        let least = wish.least.max(LEAST);
        Offered { expires: wish.interval.max(least), min_se: (least > LEAST).then_some(least), raises: 0 }
    }

    /// After a 422: what to ask for next (RFC 4028 section 7.4). `None`: give up, the 422 named no Min-SE, one that we had met already, one without
    /// sense, or it is one 422 too many.
    pub fn raise(self, min_se: Option<u32>) -> Option<Offered> {
        let min_se = min_se.filter(|m| (LEAST..=LONGEST).contains(m))?;
        let useful = min_se > self.expires || self.min_se.is_none_or(|before| min_se > before);
        (useful && self.raises < RAISES).then(|| Offered {
            expires: self.expires.max(min_se),
            min_se: Some(min_se.max(self.min_se.unwrap_or(LEAST))),
            raises: self.raises + 1,
        })
    }

    /// After a 2xx: the timer that runs from now on (RFC 4028 section 7.2). None if the peer names none: nothing expires then, and silence of the media
    /// is what ends a dead call.
    pub fn agreed(self, now: Instant, expires: Option<(u32, Option<Refresher>)>) -> Option<Session> {
        let (expires, refresher) = expires?;
        // the peer has to name one; the UAC can always refresh
        let ours = refresher != Some(Refresher::Uas);
        Some(Session::start(now, expires, ours))
    }
}

impl Session {
    /// A timer that begins now, with the 2xx sent or received. Intervals below [`LEAST`] are lengthened to it.
    pub fn start(now: Instant, expires: u32, ours: bool) -> Session {
        let expires = expires.clamp(LEAST, i32::MAX as u32);
        let whole = Duration::from_secs(expires.into());
        // section 10: the one who waits ends min(32 s, a third) before the end
        let early = Duration::from_secs(32).min(whole / 3);
        Session { expires, ours, refresh: ours.then(|| now + whole / 2), end: now + (whole - early) }
    }

    /// The timer of an answer that we gave as UAS; none for a 422.
    pub fn answered(now: Instant, answer: Answer) -> Option<Session> {
        match answer {
            Answer::TooShort(_) => None,
            Answer::Accept { expires, refresher, .. } => {
                Some(Session::start(now, expires, refresher == Refresher::Uas))
            }
        }
    }

    /// When [`Session::due`] has something to say.
    pub fn deadline(&self) -> Instant {
        self.refresh.map_or(self.end, |at| at.min(self.end))
    }

    /// What is to be done now, if anything.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.end <= now {
            return Some(Due::End);
        }
        if self.refresh.is_some_and(|at| at <= now) {
            self.refresh = None;
            return Some(Due::Refresh);
        }
        None
    }

    /// Our refresh could not be sent or was refused for now (491, 5xx, another INVITE under way): try again at half of what is left. A 408 or 481, or one
    /// that nobody answered, ends the call instead (RFC 4028 section 10).
    pub fn again(&mut self, now: Instant) {
        if self.ours {
            self.refresh = Some(now + self.end.since(now) / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use Refresher::{Uac, Uas};

    use super::*;

    fn s(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn accept(expires: u32, refresher: Refresher, require: bool) -> Answer {
        Answer::Accept { expires, refresher, require }
    }

    /// RFC 4028 section 9 with its table 2.
    #[test]
    fn as_uas() {
        let wish = Wish { interval: 600, least: 120 };
        let table = [
            // supported, Session-Expires, Min-SE, answer
            (true, None, None, accept(600, Uac, true)),
            (false, None, None, accept(600, Uas, false)),
            (true, None, Some(900), accept(900, Uac, true)),
            (true, Some((1800, None)), None, accept(600, Uac, true)),
            (true, Some((1800, Some(Uac))), None, accept(600, Uac, true)),
            (true, Some((1800, Some(Uas))), None, accept(600, Uas, false)),
            (true, Some((1800, None)), Some(900), accept(900, Uac, true)),
            (true, Some((300, None)), Some(90), accept(300, Uac, true)),
            (true, Some((300, None)), Some(300), accept(300, Uac, true)),
            (true, Some((120, None)), None, accept(120, Uac, true)),
            (true, Some((119, None)), None, Answer::TooShort(120)),
            (true, Some((0, Some(Uas))), Some(90), Answer::TooShort(120)),
            // put there by a proxy: the UAC would not understand 422
            (false, Some((60, None)), None, accept(120, Uas, false)),
            (false, Some((1800, Some(Uac))), None, accept(600, Uas, false)),
            (true, Some((u32::MAX, None)), Some(u32::MAX), accept(u32::MAX, Uac, true)),
        ];
        for (supported, expires, min_se, expected) in table {
            assert_eq!(
                answer(wish, Asked { supported, expires, min_se }),
                expected,
                "{supported} {expires:?} {min_se:?}"
            );
        }
    }

    #[test]
    fn as_uac_422_raises_and_never_loops() {
        let first = Offered::new(Wish { interval: 90, least: 90 });
        assert_eq!((first.expires, first.min_se), (90, None));
        let second = first.raise(Some(300)).expect("raised");
        assert_eq!((second.expires, second.min_se), (300, Some(300)));
        let third = second.raise(Some(400)).expect("raised by another proxy");
        assert_eq!((third.expires, third.min_se), (400, Some(400)));
        for nonsense in [None, Some(0), Some(89), Some(300), Some(400), Some(LONGEST + 1), Some(u32::MAX)] {
            assert_eq!(third.raise(nonsense), None, "{nonsense:?}");
        }
        // a 422 although we asked for more: Min-SE is taken along
        let wide = Offered::new(Wish::default()).raise(Some(600)).expect("once");
        assert_eq!((wide.expires, wide.min_se), (1800, Some(600)));
        let mut offered = first;
        for n in 1..=RAISES {
            offered = offered.raise(Some(100 + u32::from(n))).expect("still patient");
        }
        assert_eq!(offered.raise(Some(500)), None);
    }

    #[test]
    fn who_refreshes_and_when_it_ends() {
        let offered = Offered::new(Wish::default());
        let table = [
            // what the 2xx says: ours, refresh at, end at
            (Some((1800, Some(Uac))), Some((true, 900, 1768))),
            (Some((1800, None)), Some((true, 900, 1768))),
            (Some((1800, Some(Uas))), Some((false, 0, 1768))),
            (Some((90, Some(Uac))), Some((true, 45, 60))),
            (Some((96, Some(Uas))), Some((false, 0, 64))),
            (Some((5, Some(Uac))), Some((true, 45, 60))),
            (None, None),
        ];
        for (says, expected) in table {
            let session = offered.agreed(s(0), says);
            assert_eq!(session.map(|x| x.ours), expected.map(|x| x.0), "{says:?}");
            let (Some(mut session), Some((ours, refresh, end))) = (session, expected) else { continue };
            if ours {
                assert_eq!(session.deadline(), s(refresh), "{says:?}");
                assert_eq!(session.due(s(refresh - 1)), None);
                assert_eq!(session.due(s(refresh)), Some(Due::Refresh));
                assert_eq!(session.due(s(refresh)), None, "once");
            }
            assert_eq!(session.deadline(), s(end), "{says:?}");
            assert_eq!(session.due(s(end)), Some(Due::End));
        }
    }

    #[test]
    fn as_uas_the_timer_starts_with_the_2xx() {
        assert_eq!(Session::answered(s(0), Answer::TooShort(90)), None);
        assert_eq!(Session::answered(s(0), accept(600, Uac, true)), Some(Session::start(s(0), 600, false)));
        assert_eq!(Session::answered(s(0), accept(600, Uas, false)), Some(Session::start(s(0), 600, true)));
    }

    #[test]
    fn a_refresh_that_was_refused_for_now_is_tried_again_before_the_end() {
        let mut session = Session::start(s(0), 600, true);
        assert_eq!(session.due(s(300)), Some(Due::Refresh));
        session.again(s(308));
        assert_eq!(session.deadline(), s(438), "568 is the end");
        let mut theirs = Session::start(s(0), 600, false);
        theirs.again(s(10));
        assert_eq!(theirs.deadline(), s(568));
    }
}
