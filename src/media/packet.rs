//! The RTP header (RFC 3550 5.1) as the relay and the recorder see it: read in place behind bounds checks of our own, and
//! written by the `rtp` crate where a packet is ours. `rtp::Packet::unmarshal` panics on a header extension that lies about
//! its length, so nothing from a socket goes near it.

use ::rtp::header::Header as Fields;
use ::rtp::packet::Packet;
use bytes::Bytes;
use webrtc_util::marshal::{Marshal, MarshalSize};

/// Length of the fixed header, in bytes.
pub const FIXED: usize = 12;
/// Longest packet that is relayed or made, in bytes: what fits into an Ethernet frame, with some air for tunnels that lie.
pub const MAX_PACKET: usize = 2048;

/// The fields of a header that was found sound, and where the payload lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Begin of a talk spurt, or end of a frame.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: u16,
    /// Timestamp, in units of the payload's clock.
    pub timestamp: u32,
    /// Source.
    pub ssrc: u32,
    /// First byte of the payload.
    pub start: usize,
    /// One past its last byte; padding is not payload.
    pub end: usize,
}

impl Header {
    /// Reads a header. Nothing if it is no RTP: another version, contributing sources, an extension or padding longer than
    /// the packet, or a payload type that RTCP would have on this port (RFC 5761 4).
    pub fn parse(packet: &[u8]) -> Option<Header> {
        if packet.len() < FIXED || packet.len() > MAX_PACKET || packet[0] >> 6 != 2 || (192..=223).contains(&packet[1])
        {
            return None;
        }
        let mut start = FIXED + 4 * usize::from(packet[0] & 0x0f);
        if packet[0] & 0x10 != 0 {
            let length = packet.get(start + 2..start + 4)?;
            start += 4 + 4 * usize::from(u16::from_be_bytes([length[0], length[1]]));
        }
        let mut end = packet.len();
        if packet[0] & 0x20 != 0 {
            let padding = usize::from(packet[end - 1]);
            end = end.checked_sub(padding).filter(|_| padding != 0)?;
        }
        (start <= end).then(|| Header {
            marker: packet[1] & 0x80 != 0,
            payload_type: packet[1] & 0x7f,
            seq: u16::from_be_bytes([packet[2], packet[3]]),
            timestamp: u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]),
            ssrc: u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]),
            start,
            end,
        })
    }

    /// Writes the fields over the header of a packet that [`Header::parse`] accepted; what else is in it stays.
    pub fn patch(&self, packet: &mut [u8]) {
        packet[1] = u8::from(self.marker) << 7 | self.payload_type;
        packet[2..4].copy_from_slice(&self.seq.to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
    }
}

/// Writes packets of our own with rising sequence numbers: prompts, tones, events.
#[derive(Clone, Debug)]
pub struct Sender {
    ssrc: u32,
    seq: u16,
    timestamp: u32,
}

impl Sender {
    /// A source with its identifier and random first numbers (RFC 3550 5.1).
    pub fn new(ssrc: u32, seq: u16, timestamp: u32) -> Sender {
        Sender { ssrc, seq, timestamp }
    }

    /// A packet at the current timestamp, which stays.
    pub fn packet(&mut self, payload_type: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        let (sequence_number, timestamp) = (self.seq, self.timestamp);
        let header = Fields {
            version: 2,
            marker,
            payload_type,
            sequence_number,
            timestamp,
            ssrc: self.ssrc,
            ..Fields::default()
        };
        let packet = Packet { header, payload: Bytes::copy_from_slice(payload) };
        let mut out = vec![0; packet.marshal_size()];
        let written = packet.marshal_to(&mut out).expect("the buffer has the size that the packet asked for");
        out.truncate(written);
        self.seq = self.seq.wrapping_add(1);
        out
    }

    /// Moves the timestamp on, in units of the payload's clock.
    pub fn advance(&mut self, ticks: u32) {
        self.timestamp = self.timestamp.wrapping_add(ticks);
    }

    /// The current timestamp.
    pub fn timestamp(&self) -> u32 {
        self.timestamp
    }
}

/// Timestamps of packets of our own within a stream that carries others too: from where it stood when we began to speak.
#[derive(Clone, Copy, Default, Debug)]
pub struct Spurt(Option<u32>);

impl Spurt {
    /// The timestamp of the present packet. `anew` says where the stream stands if this one has to begin; then it is the first of a
    /// talk spurt.
    pub fn stamp(&mut self, anew: impl FnOnce() -> u32) -> (u32, bool) {
        let begins = self.0.is_none();
        (*self.0.get_or_insert_with(anew), begins)
    }

    /// The present packet is over, in units of the payload's clock.
    pub fn advance(&mut self, ticks: u32) {
        self.0 = self.0.map(|timestamp| timestamp.wrapping_add(ticks));
    }

    /// We pause: the next packet begins anew.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use webrtc_util::marshal::Unmarshal;

    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        let fixed = [0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        let with = |first: u8, tail: &[u8]| [&[first], &fixed[1..], tail].concat();
        for (packet, payload) in [
            (fixed[..11].to_vec(), None),
            (fixed.to_vec(), Some(12..12)),
            (with(0x40, &[]), None),
            (with(0x81, &[0; 3]), None),
            (with(0x81, &[0; 5]), Some(16..17)),
            (with(0x8f, &[0; 59]), None),
            (with(0x90, &[0xbe, 0xde, 0]), None),
            (with(0x90, &[0xbe, 0xde, 0, 0]), Some(16..16)),
            (with(0x90, &[0xbe, 0xde, 0, 1, 0x1f, 1, 2, 3]), Some(20..20)),
            (with(0x90, &[0xbe, 0xde, 0xff, 0xff, 0x1f, 1, 2, 3]), None),
            (with(0xa0, &[9, 9, 2]), Some(12..13)),
            (with(0xa0, &[9, 9, 0]), None),
            (with(0xa0, &[9, 9, 4]), None),
            ([&[0x80, 200], &fixed[2..]].concat(), None),
            (with(0x80, &[0; MAX_PACKET]), None),
        ] {
            assert_eq!(Header::parse(&packet).map(|h| h.start..h.end), payload, "{packet:02x?}");
        }
    }

    #[test]
    fn a_packet_of_ours_reads_back_and_is_patched_in_place() {
        let mut sender = Sender::new(7, u16::MAX, 1000);
        let mut first = sender.packet(8, true, b"sound");
        sender.advance(160);
        let second = Header::parse(&sender.packet(8, false, b"")).expect("sound");
        assert_eq!((second.seq, second.timestamp, sender.timestamp()), (0, 1160, 1160));
        let mut header = Header::parse(&first).expect("sound");
        assert_eq!((header.marker, header.payload_type, header.seq, header.ssrc), (true, 8, u16::MAX, 7));
        header.marker = false;
        header.payload_type = 96;
        header.patch(&mut first);
        assert_eq!(Header::parse(&first), Some(header));
        assert_eq!(&first[header.start..header.end], b"sound");
    }

    proptest! {
        #[test]
        fn random_bytes_agree_with_the_crate_where_it_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x2f | 0x80;
            }
            let ours = Header::parse(&bytes);
            if let (Some(h), Ok(packet)) = (ours, Packet::unmarshal(&mut Bytes::from(bytes.clone()))) {
                prop_assert_eq!(h.seq, packet.header.sequence_number);
                prop_assert_eq!(h.ssrc, packet.header.ssrc);
                prop_assert_eq!(&bytes[h.start..h.end], &packet.payload[..]);
            }
        }
    }
}
