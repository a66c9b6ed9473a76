//! How a make of phone is told to answer by itself: intercom and paging. No standard is understood everywhere (RFC 5373's
//! Answer-Mode hardly anywhere), so each make gets the header that it reads, known by the User-Agent of its REGISTER or named
//! by the operator. A make that nobody knows gets all forms that do no harm together.
//!
//! To add a make: one row in [`MAKES`]; its word in the configuration's choices comes from there.

/// The forms that a make of phone understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AutoAnswer {
    /// Value of Alert-Info (RFC 3261 20.4; most makes read words that its grammar does not have).
    pub alert_info: Option<&'static str>,
    /// Value of Call-Info (RFC 3261 20.9).
    pub call_info: Option<&'static str>,
    /// `;intercom=true` in the request-URI.
    pub intercom: bool,
}

/// A make of phone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Make {
    /// As `vendor` in the configuration names it.
    pub name: &'static str,
    /// How its User-Agent begins, letter case aside; the first row that fits is taken.
    pub agents: &'static [&'static str],
    /// What it understands.
    pub auto_answer: AutoAnswer,
}

const ANSWER_AFTER: &str = "<sip:127.0.0.1>;answer-after=0";

const fn call_info(value: &'static str) -> AutoAnswer {
    AutoAnswer { alert_info: None, call_info: Some(value), intercom: false }
}

const fn alert_info(value: &'static str) -> AutoAnswer {
    AutoAnswer { alert_info: Some(value), call_info: None, intercom: false }
}

/// For makes that nobody knows.
pub const UNKNOWN: AutoAnswer =
    AutoAnswer { alert_info: Some("Ring Answer"), call_info: Some(ANSWER_AFTER), intercom: true };

/// Makes that are known. Loudspeakers of Algo, CyberData and the like answer every call of themselves, and take any of these.
pub const MAKES: &[Make] = &[
    Make {
        name: "sangoma-s",
        agents: &["Sangoma S"],
        auto_answer: alert_info("<http://www.sangoma.com>;info=external"),
    },
    Make { name: "sangoma-p", agents: &["Sangoma P"], auto_answer: alert_info("ring-answer") },
    Make { name: "digium", agents: &["Digium"], auto_answer: alert_info("ring-answer") },
    Make { name: "mitel", agents: &["Mitel"], auto_answer: call_info("<sip:broadworks.net>;answer-after=0") },
    Make {
        name: "openstage",
        agents: &["OpenStage"],
        auto_answer: alert_info("<http://example.com>;info=alert-autoanswer"),
    },
    Make { name: "panasonic", agents: &["Panasonic"], auto_answer: alert_info("Intercom") },
    Make { name: "polycom", agents: &["Polycom", "PolyVVX", "Poly/"], auto_answer: alert_info("info=Auto Answer") },
    Make {
        name: "yealink",
        agents: &["Yealink"],
        auto_answer: AutoAnswer { alert_info: None, call_info: Some(ANSWER_AFTER), intercom: true },
    },
    Make { name: "snom", agents: &["snom"], auto_answer: call_info(ANSWER_AFTER) },
    Make { name: "grandstream", agents: &["Grandstream"], auto_answer: call_info(ANSWER_AFTER) },
    Make { name: "cisco", agents: &["Cisco", "Linksys"], auto_answer: call_info(ANSWER_AFTER) },
    Make {
        name: "fanvil",
        agents: &["Fanvil"],
        auto_answer: AutoAnswer { alert_info: None, call_info: Some(ANSWER_AFTER), intercom: true },
    },
    Make { name: "audiocodes", agents: &["AudioCodes"], auto_answer: call_info(ANSWER_AFTER) },
    Make {
        name: "aastra",
        agents: &["Aastra"],
        // Without the delay it rings for ever.
        auto_answer: alert_info("<http://127.0.0.1>;info=alert-autoanswer;delay=0"),
    },
    Make {
        name: "gigaset",
        agents: &["Gigaset", "Maxwell"],
        auto_answer: call_info("<sip:127.0.0.1>;info=alert-autoanswer;delay=0"),
    },
];

/// The words that `vendor` may be: every make, and `other` for what no make understands better.
pub const NAMES: [&str; MAKES.len() + 1] = {
    let mut names = ["other"; MAKES.len() + 1];
    let mut i = 0;
    while i < MAKES.len() {
        names[i] = MAKES[i].name;
        i += 1;
    }
    names
};

/// What to send to a phone: by the make that the operator named, else by its User-Agent.
pub fn auto_answer(vendor: Option<&str>, user_agent: Option<&str>) -> AutoAnswer {
    if vendor == Some("other") {
        return UNKNOWN;
    }
    let named = vendor.and_then(|name| MAKES.iter().find(|make| make.name == name));
    let begins = |agent: &str, with: &str| agent.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    let seen = || user_agent.and_then(|agent| MAKES.iter().find(|make| make.agents.iter().any(|a| begins(agent, a))));
    named.or_else(seen).map_or(UNKNOWN, |make| make.auto_answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_are_known_by_how_their_user_agent_begins() {
        for (vendor, agent, want) in [
            (None, Some("Yealink SIP-T46S 66.86.0.15"), "yealink"),
            (None, Some("PolycomVVX-VVX_411-UA/6.4.6"), "polycom"),
            (None, Some("snom870/8.7.5.35"), "snom"),
            (None, Some("Sangoma S500 V2.0.4.74"), "sangoma-s"),
            (None, Some("Fanvil PA2 2.8.1"), "fanvil"),
            (Some("aastra"), Some("Yealink SIP-T46S"), "aastra"),
            (Some("no such"), Some("Yealink SIP-T46S"), "yealink"),
            (None, Some("YEALINK SIP-T31"), "yealink"),
        ] {
            let make = MAKES.iter().find(|m| m.name == want).expect("it is in the table");
            assert_eq!(auto_answer(vendor, agent), make.auto_answer, "{vendor:?} {agent:?}");
        }
        assert_eq!(auto_answer(Some("other"), Some("Yealink SIP-T46S")), UNKNOWN);
        for agent in [None, Some(""), Some("a real Yealink"), Some("Яндекс"), Some("Sangoma")] {
            assert_eq!(auto_answer(None, agent), UNKNOWN, "{agent:?}");
        }
    }

    #[test]
    fn no_make_stands_in_the_shadow_of_another() {
        let all: Vec<(&str, &str)> = MAKES.iter().flat_map(|m| m.agents.iter().map(|a| (m.name, *a))).collect();
        for (i, (name, agent)) in all.iter().enumerate() {
            let earlier = all[..i].iter().find(|(_, a)| agent.to_lowercase().starts_with(&a.to_lowercase()));
            assert_eq!(earlier, None, "{name} is never reached");
        }
        assert!(MAKES.iter().all(|m| m.auto_answer.alert_info.is_some() || m.auto_answer.call_info.is_some()));
    }
}
