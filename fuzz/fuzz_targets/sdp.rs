//! A session description: read, look at everything, print, read again, make it ours, answer it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use strowger::sdp::session::payloads;
use strowger::sdp::{Direction, Format, Origin, Rewrite, Session, offer};

fuzz_target!(|data: &[u8]| {
    let Ok(session) = Session::parse(data) else { return };
    let printed = session.to_bytes();
    let again = Session::parse(&printed).expect("our own text can be read");
    assert_eq!(again.to_bytes(), printed);
    assert!(offer::same_media(&again, &Session::parse(&printed).expect("read before")));
    for (i, media) in session.media.iter().enumerate() {
        let codecs = media.codecs();
        let _ = (
            session.remote(i),
            offer::direction(&session, i),
            media.in_use(),
            media.event_payload(),
            media.rtcp_port(),
        );
        let _ = (payloads(&codecs, &codecs), offer::payload_map(&codecs, &Format::BASIC));
        assert_eq!(offer::relay_kind(media).is_some(), media.port != 0 && media.is_relayable());
    }
    let ports: Vec<Option<u16>> = (0..16u16).map(|i| Some(20_000 + 2 * i)).collect();
    let (origin, address) = (Origin::new(1), [192, 0, 2, 1].into());
    for keep_codecs in [None, Some(&Format::BASIC[..])] {
        let ours = offer::rewrite(&session, &Rewrite { address, ports: &ports, origin: &origin, keep_codecs });
        let ours = Session::parse(&ours.to_bytes()).expect("what we send can be read");
        assert_eq!(ours.media.len(), session.media.len());
        for i in 0..ours.media.len() {
            assert!(ours.media[i].port == 0 || ours.remote(i) == Some((address, 20_000 + 2 * i as u16).into()));
        }
    }
    if let Ok(answer) = offer::answer(&session, &origin, address, 20_000, &Format::BASIC, Direction::SendRecv) {
        assert_eq!(offer::check_answer(&session, &answer), Ok(()));
    }
});
