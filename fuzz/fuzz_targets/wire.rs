//! A datagram: parse, look at every view, answer, write again, read again.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strowger::sip::{Message, Name, NameAddr, Uri, Via, Writer, digest, door, header, limits};

fuzz_target!(|data: &[u8]| {
    let m = match Message::parse(Bytes::copy_from_slice(data)) {
        Ok(m) => m,
        Err(e) => {
            assert!(e.drop.is_some() != e.answer.is_some());
            let _ = e.response(([192, 0, 2, 1], 5060).into());
            return;
        }
    };
    let (via, from, to) = (m.via(), m.from(), m.to());
    assert_eq!(m.branch(), via.branch());
    assert_eq!((m.from_tag(), m.to_tag()), (from.tag(), to.tag()));
    let _ = (
        via.received(),
        via.rport(),
        from.display_text(),
        to.uri.user_decoded(),
        m.contact(),
        m.max_forwards(),
        m.body(),
    );
    if m.is_request() {
        let _ = (m.uri().expect("checked by the parser").ip(), door::check(&m));
    }
    for name in Name::ALL {
        for value in m.values(*name) {
            let _ = (NameAddr::parse(value).is_ok(), Via::parse(value).is_ok(), Uri::parse(value).is_ok());
            let _ = (
                header::ReferTo::parse(value).is_ok(),
                header::SessionExpires::parse(value),
                header::RetryAfter::parse(value),
            );
            let _ = (
                header::Reason::parse(value).is_ok(),
                header::Diversion::parse(value).is_ok(),
                header::RAck::parse(value),
            );
        }
        if let Some(text) = m.text(*name) {
            let _ = (digest::Challenge::parse(text), digest::Credentials::parse(text).map(|c| c.verify("a", "b")));
        }
    }
    let again = Message::parse(m.wire().clone()).expect("accepted before");
    assert!(again.all().eq(m.all()) && again.body() == m.body());
    let answer = Writer::answer(&m, ([192, 0, 2, 1], 5060).into(), 200, "OK", Some("t")).finish();
    if answer.len() <= limits::MESSAGE {
        let answer = Message::parse(answer).expect("our answer can be read");
        assert_eq!((answer.branch(), answer.call_id(), answer.cseq().seq), (m.branch(), m.call_id(), m.cseq().seq));
    }
});
