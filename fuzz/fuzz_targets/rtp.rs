//! Packets at a relay's ports: whatever arrives is judged, patched, placed on a recording's timeline and read for digits.
//! The input is a list of packets: way, length, time since the last one, bytes.
#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use strowger::base::Instant;
use strowger::media::dtmf;
use strowger::media::packet::Header;
use strowger::media::relay::{Arrival, Relay, Verdict};
use strowger::media::track::Track;
use strowger::media::{Codec, Command, Kind, Port, PtMap, Remote, Side};

fuzz_target!(|data: &[u8]| {
    let (mut relay, mut out) = (Relay::new(), Vec::new());
    let mut now = Instant::from_micros(1_000_000);
    let ports = [Port(20_000), Port(20_002)];
    let peer = |i: usize, rtcp: bool| SocketAddr::from(([192, 0, 2, i as u8], 4000 + u16::from(rtcp)));
    for (i, port) in ports.into_iter().enumerate() {
        relay.apply(
            now,
            Command::Open { port, kind: Kind::Rtp { clock: 8000 }, ssrc: i as u32, timeout: Duration::from_secs(1) },
            &mut out,
        );
        let nat = (i == 1).then_some([203, 0, 113, 7].into());
        relay.apply(now, Command::Remote { port, remote: Remote { sdp: peer(i, false), nat } }, &mut out);
        relay.apply(now, Command::Flow { port, send: true, expect: true }, &mut out);
    }
    let to_b = vec![PtMap { from: 101, to: 96 }];
    relay.apply(now, Command::Link { a: ports[0], b: ports[1], to_a: vec![], to_b }, &mut out);
    let (mut track, mut keys, mut frames) = (Track::new(now, 8000), dtmf::Reader::default(), Vec::new());
    track.tap(Side::Left, vec![(8, Codec::Pcma), (9, Codec::G722), (101, Codec::Event)]);
    let mut rest = data;
    while let [way, length, gap, more @ ..] = rest {
        let (packet, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        now = now + Duration::from_millis(u64::from(*gap));
        let (i, rtcp) = (usize::from(way & 1), way & 2 != 0);
        let from = if way & 4 == 0 { peer(i, rtcp) } else { ([203, 0, 113, 7], 4000 + u16::from(way >> 3)).into() };
        let mut packet = packet.to_vec();
        if let Some(header) = Header::parse(&packet) {
            let _ = keys.packet(&header, &packet[header.start..header.end]);
        }
        track.packet(if i == 0 { Side::Left } else { Side::Right }, now, &packet);
        frames.clear();
        track.drain(now, &mut frames);
        let length = packet.len();
        if let Verdict::Forward { port, .. } = relay.packet(now, Arrival { port: ports[i], rtcp, from }, &mut packet) {
            assert_eq!((port, packet.len()), (ports[1 - i], length));
            assert!(rtcp || Header::parse(&packet).is_some_and(|header| header.ssrc == 1 - i as u32));
        }
        relay.tick(now, &mut out);
    }
    while track.finish(now, &mut frames) > 0 {}
});
