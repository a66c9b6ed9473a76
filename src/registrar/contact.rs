//! Which addresses are the same, and which are ours (RFC 3261 19.1.4, RFC 7616 3.4.6). Pure comparison of text.

use std::net::IpAddr;

use crate::directory::Directory;
use crate::sip::uri::{Params, Uri};

/// Whether `host` (of a URI, without brackets) is this server: one of `[node] domains` or an IP host of `listen`. Where we
/// listen on every address, every address that somebody reached us by is ours; on a loopback address, so is `localhost`.
pub fn ours(directory: &Directory, host: &str) -> bool {
    if directory.node.domains.iter().any(|d| d.eq_ignore_ascii_case(host)) {
        return true;
    }
    if host.eq_ignore_ascii_case("localhost") {
        return directory.listen.iter().any(|l| l.bind.ip().is_loopback() || l.bind.ip().is_unspecified());
    }
    let Ok(ip) = host.parse::<IpAddr>() else { return false };
    let ip = ip.to_canonical();
    directory.listen.iter().any(|l| {
        l.bind.ip().is_unspecified()
            || l.bind.ip().to_canonical() == ip
            || l.advertise.is_some_and(|a| a.to_canonical() == ip)
    })
}

/// Whether two URIs are the same (RFC 3261 19.1.4): a port or one of the parameters that choose where a request goes counts
/// when only one of them has it, other parameters only when both have them.
pub fn same(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.raw == b.raw
        || (a.scheme == b.scheme
            && a.user_decoded() == b.user_decoded()
            && a.user.is_some() == b.user.is_some()
            && a.password == b.password
            && a.host.eq_ignore_ascii_case(b.host)
            && a.port == b.port
            && a.is_sip()
            && same_params(&a.params, &b.params)
            && same_params(&b.params, &a.params))
}

/// Whether the `uri` that somebody signed is the request's: the same text, or a SIP URI whose host is the same or ours (phones
/// sign the domain and send to the address, or the other way round) and whose user is the same, or left out, as some do.
pub fn same_request(signed: &str, asked: &str, directory: &Directory) -> bool {
    if signed == asked {
        return true;
    }
    let (Ok(signed), Ok(asked)) = (Uri::parse(signed), Uri::parse(asked)) else { return false };
    let place = signed.host.eq_ignore_ascii_case(asked.host) || ours(directory, signed.host);
    let user = signed.user.is_none() || signed.user_decoded() == asked.user_decoded();
    signed.is_sip() && asked.is_sip() && place && user
}

fn same_params(a: &Params<'_>, b: &Params<'_>) -> bool {
    const ALWAYS: [&str; 5] = ["transport", "user", "ttl", "method", "maddr"];
    a.iter().all(|(name, value)| match b.get(name) {
        Some(other) => value.eq_ignore_ascii_case(other),
        None => !ALWAYS.iter().any(|n| n.eq_ignore_ascii_case(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registrar::tests::office;

    #[test]
    fn uris_compare_as_the_rfc_says() {
        // RFC 3261 19.1.4, and our own.
        for (a, b, equal) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", true),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", true),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5", true),
            ("sip:ALICE@AtLanTa.CoM", "sip:alice@AtLanTa.CoM", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", false),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", false),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;newparam=6", false),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", false),
            ("sip:a@h", "sips:a@h", false),
            ("sip:h", "sip:@h", false),
        ] {
            let same = match (Uri::parse(a), Uri::parse(b)) {
                (Ok(a), Ok(b)) => same(&a, &b) && same(&b, &a),
                _ => false,
            };
            assert_eq!(same, equal, "{a} {b}");
        }
    }

    #[test]
    fn our_hosts_are_ours() {
        let office = office();
        for (host, is) in [
            ("office.example", true),
            ("OFFICE.example", true),
            ("127.0.0.1", true),
            ("localhost", true),
            ("127.0.0.2", false),
            ("evil.example", false),
            ("::1", false),
        ] {
            assert_eq!(ours(&office, host), is, "{host}");
        }
    }

    #[test]
    fn what_was_signed_is_what_is_asked() {
        let office = office();
        for (signed, asked, same) in [
            ("sip:office.example", "sip:127.0.0.1:5060", true),
            ("sip:121@office.example", "sip:121@127.0.0.1;transport=tcp", true),
            // SIPp signs the address without the user.
            ("sip:127.0.0.1:5060", "sip:121@127.0.0.1:5060", true),
            ("sip:office.example", "sip:121@127.0.0.1:5060", true),
            ("sip:elsewhere.example", "sip:121@elsewhere.example", true),
            ("sip:office.example", "sip:121@elsewhere.example", true),
            ("sip:121@office.example", "sip:122@office.example", false),
            ("sip:121@office.example", "sip:office.example", false),
            ("sip:@office.example", "sip:121@office.example", false),
            ("sip:121@office.example", "sip:121@elsewhere.example", true),
            ("sip:evil.example", "sip:121@office.example", false),
            ("sip:121@evil.example", "sip:121@office.example", false),
            ("tel:121", "sip:121@office.example", false),
            ("", "sip:121@office.example", false),
            ("*", "sip:121@office.example", false),
        ] {
            assert_eq!(same_request(signed, asked, &office), same, "{signed} {asked}");
        }
    }
}
