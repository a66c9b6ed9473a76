//! Requests that we send of our own accord, rarely: REGISTER to a trunk's registrar, OPTIONS to see whether a trunk is alive (RFC 3261 10.2,
//! 11.1). Put together from rsip's typed values; our own URIs fill them, since rsip's parser knows no IPv6. Text from a configuration or a
//! peer cannot split a line here either.

use bytes::Bytes;
use rsip::common::uri::{Auth, Domain, Host, HostWithPort, Param};
use rsip::headers::untyped;
use rsip::headers::{Header, typed};
use rsip::param::{Branch, OtherParam, OtherParamValue, Tag};

use super::door;
use super::transport::Transport;
use super::uri::{Scheme, Uri};

/// A REGISTER.
#[derive(Clone, Copy, Debug)]
pub struct Register<'a> {
    /// The request URI: the registrar's domain.
    pub registrar: &'a str,
    /// The address of record, in From and To.
    pub aor: &'a str,
    /// Our Contact URI.
    pub contact: &'a str,
    /// For how long, in seconds; 0 unregisters.
    pub expires: u32,
    /// One for all registrations of a trunk.
    pub call_id: &'a str,
    /// Our tag.
    pub from_tag: &'a str,
    /// One higher each time.
    pub cseq: u32,
    /// The transaction's branch, with its cookie.
    pub branch: &'a str,
    /// Our `host[:port]` in Via.
    pub sent_by: &'a str,
    /// What carries it.
    pub transport: Transport,
    /// The value of Authorization.
    pub authorization: Option<&'a str>,
    /// The value of Proxy-Authorization.
    pub proxy_authorization: Option<&'a str>,
    /// What we call ourselves.
    pub user_agent: &'a str,
}

/// An OPTIONS.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The request URI, and To.
    pub uri: &'a str,
    /// Our URI, in From.
    pub from: &'a str,
    /// Our Contact URI.
    pub contact: &'a str,
    /// The Call-ID.
    pub call_id: &'a str,
    /// Our tag.
    pub from_tag: &'a str,
    /// The CSeq number.
    pub cseq: u32,
    /// The transaction's branch, with its cookie.
    pub branch: &'a str,
    /// Our `host[:port]` in Via.
    pub sent_by: &'a str,
    /// What carries it.
    pub transport: Transport,
    /// What we call ourselves.
    pub user_agent: &'a str,
}

/// Writes a REGISTER. URIs that cannot be read are sent as if they were hosts.
pub fn register(r: &Register<'_>) -> Bytes {
    let mut headers = vec![
        via(r.sent_by, r.transport, r.branch).into(),
        untyped::MaxForwards::from(70u32).into(),
        typed::From { display_name: None, uri: uri(r.aor), params: vec![tag(r.from_tag)] }.into(),
        typed::To { display_name: None, uri: uri(r.aor), params: Vec::new() }.into(),
        untyped::CallId::from(line(r.call_id)).into(),
        typed::CSeq { seq: r.cseq, method: rsip::Method::Register }.into(),
        typed::Contact { display_name: None, uri: uri(r.contact), params: Vec::new() }.into(),
        untyped::Expires::from(r.expires).into(),
    ];
    if let Some(value) = r.authorization {
        headers.push(untyped::Authorization::from(line(value)).into());
    }
    if let Some(value) = r.proxy_authorization {
        headers.push(untyped::ProxyAuthorization::from(line(value)).into());
    }
    headers.push(untyped::Supported::from("path").into());
    finish(rsip::Method::Register, uri(r.registrar), headers, r.user_agent)
}

/// Writes an OPTIONS.
pub fn options(o: &Options<'_>) -> Bytes {
    let headers = vec![
        via(o.sent_by, o.transport, o.branch).into(),
        untyped::MaxForwards::from(70u32).into(),
        typed::From { display_name: None, uri: uri(o.from), params: vec![tag(o.from_tag)] }.into(),
        typed::To { display_name: None, uri: uri(o.uri), params: Vec::new() }.into(),
        untyped::CallId::from(line(o.call_id)).into(),
        typed::CSeq { seq: o.cseq, method: rsip::Method::Options }.into(),
        typed::Contact { display_name: None, uri: uri(o.contact), params: Vec::new() }.into(),
        untyped::Accept::from(door::ACCEPT).into(),
    ];
    finish(rsip::Method::Options, uri(o.uri), headers, o.user_agent)
}

fn finish(method: rsip::Method, uri: rsip::Uri, mut headers: Vec<Header>, user_agent: &str) -> Bytes {
    headers.push(untyped::UserAgent::from(line(user_agent)).into());
    headers.push(untyped::ContentLength::from(0u32).into());
    let request = rsip::Request { method, uri, version: rsip::Version::V2, headers: headers.into(), body: Vec::new() };
    Bytes::from(request.to_string())
}

fn via(sent_by: &str, transport: Transport, branch: &str) -> typed::Via {
    let transport = match transport {
        Transport::Udp => rsip::Transport::Udp,
        Transport::Tcp => rsip::Transport::Tcp,
        Transport::Tls => rsip::Transport::Tls,
        Transport::Ws => rsip::Transport::Ws,
        Transport::Wss => rsip::Transport::Wss,
    };
    let host_with_port = HostWithPort { host: Host::Domain(Domain::from(line(sent_by))), port: None };
    typed::Via {
        version: rsip::Version::V2,
        transport,
        uri: host_with_port.into(),
        params: vec![Param::Branch(Branch::from(line(branch))), Param::Other(OtherParam::from("rport"), None)],
    }
}

fn tag(tag: &str) -> Param {
    Param::Tag(Tag::from(line(tag)))
}

/// Our view of a URI as rsip's value.
fn uri(text: &str) -> rsip::Uri {
    let text = line(text);
    let Ok(view) = Uri::parse(&text) else {
        return HostWithPort { host: Host::Domain(Domain::from(text)), port: None }.into();
    };
    let scheme = match view.scheme {
        Scheme::Sip => rsip::Scheme::Sip,
        Scheme::Sips => rsip::Scheme::Sips,
        // Whole, as a host without a scheme: rsip would put `//` behind any other.
        Scheme::Tel | Scheme::Other => {
            return HostWithPort { host: Host::Domain(Domain::from(text)), port: None }.into();
        }
    };
    let host = if view.host.contains(':') { format!("[{}]", view.host) } else { view.host.to_owned() };
    let params = view.params.iter().map(|(name, value)| {
        Param::Other(OtherParam::from(name), (!value.is_empty()).then(|| OtherParamValue::from(value)))
    });
    rsip::Uri {
        scheme: Some(scheme),
        auth: view.user.map(|user| Auth { user: user.to_owned(), password: view.password.map(str::to_owned) }),
        host_with_port: HostWithPort { host: Host::Domain(Domain::from(host)), port: view.port.map(Into::into) },
        params: params.collect(),
        headers: Vec::new(),
    }
}

/// Text that stays within its line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sip::{Message, Method, Name};

    #[test]
    fn what_we_send_our_parser_reads() {
        for (aor, contact, sent_by, host) in [
            (
                "sip:79130000000@sip.carrier.example",
                "sip:79130000000@192.0.2.1:5060;transport=tcp",
                "192.0.2.1:5060",
                "192.0.2.1",
            ),
            ("sip:a%20b@[2001:db8::5]:5070;x", "sips:u:p@[2001:db8::1]", "[2001:db8::1]:5061", "2001:db8::1"),
        ] {
            let bytes = register(&Register {
                registrar: "sip:sip.carrier.example;transport=udp",
                aor,
                contact,
                expires: 300,
                call_id: "c1@strowger",
                from_tag: "t1",
                cseq: 7,
                branch: "z9hG4bKb1",
                sent_by,
                transport: Transport::Tcp,
                authorization: Some("Digest username=\"x\"\r\nEvil: 1"),
                proxy_authorization: Some("Digest username=\"y\""),
                user_agent: "strowger/0.1",
            });
            let m = Message::parse(bytes).unwrap();
            assert_eq!((m.method(), m.cseq().seq, m.call_id()), (Method::Register, 7, "c1@strowger"));
            assert_eq!(m.request_uri(), "sip:sip.carrier.example;transport=udp");
            assert_eq!((m.from().uri.raw, m.to().uri.raw, m.from_tag(), m.to_tag()), (aor, aor, Some("t1"), None));
            assert_eq!(m.contact().unwrap().uri.raw, contact);
            assert_eq!(
                (m.via().transport, m.via().host, m.branch(), m.via().rport()),
                ("TCP", host, Some("z9hG4bKb1"), Some(None))
            );
            assert_eq!(m.seconds(Name::Expires), Some(300));
            assert!(m.unknown("Evil").is_none() && m.has(Name::Authorization) && m.has(Name::ProxyAuthorization));
        }
    }

    #[test]
    fn options_too() {
        let bytes = options(&Options {
            uri: "sip:192.0.2.9:5080",
            from: "sip:strowger@192.0.2.1",
            contact: "sip:192.0.2.1:5060",
            call_id: "c2",
            from_tag: "t2",
            cseq: 1,
            branch: "z9hG4bKb2",
            sent_by: "192.0.2.1",
            transport: Transport::Udp,
            user_agent: "strowger/0.1",
        });
        let m = Message::parse(bytes).unwrap();
        assert_eq!((m.method(), m.request_uri(), m.max_forwards()), (Method::Options, "sip:192.0.2.9:5080", Some(70)));
        assert_eq!((m.via().port, m.via().transport, m.body().len()), (None, "UDP", 0));
    }
}
