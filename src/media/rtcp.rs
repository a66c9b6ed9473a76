//! RTCP (RFC 3550 section 6, RFC 4585, 5104, 3611) on its way through the relay: the identifiers, timestamps and sequence
//! numbers in it are moved as those of the RTP were, so that reports go on to fit the streams that they are about. Nothing is
//! made or answered here; a packet whose lengths lie is not passed on.

/// How one side's numbers become the other's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Moves {
    /// Our SSRC towards the receiver of this packet.
    pub sender: u32,
    /// SSRC of the stream of the one who sent this packet, as it reached us.
    pub source: Option<u32>,
    /// Added to the timestamps of that stream.
    pub timestamp: u32,
    /// Our SSRC towards the one who sent this packet: what its reports are about.
    pub ours: u32,
    /// SSRC of the stream that the receiver of this packet sends: what those reports must be about for it.
    pub theirs: Option<u32>,
    /// What was added to the sequence numbers of that stream on its way to the one who reports.
    pub seq: u16,
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const APPLICATION: u8 = 204;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;
/// Generic NACK (RFC 4585 6.2.1).
const NACK: u8 = 1;
/// Full intra request (RFC 5104 4.3.1).
const FIR: u8 = 4;
/// Bytes of a report block.
const REPORT: usize = 24;

/// Moves the numbers of a whole compound packet in place. False: it is no RTCP, or a length in it lies; it is then to be
/// dropped (and may have been changed in part).
pub fn patch(packet: &mut [u8], moves: &Moves) -> bool {
    if packet.len() < 8 {
        return false;
    }
    let mut rest = packet;
    while !rest.is_empty() {
        if rest.len() < 4 || rest[0] >> 6 != 2 || !(192..=223).contains(&rest[1]) {
            return false;
        }
        let length = 4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1);
        if length > rest.len() {
            return false;
        }
        let (one, next) = rest.split_at_mut(length);
        let padding = if one[0] & 0x20 != 0 { usize::from(one[length - 1]) } else { 0 };
        if padding + 4 > length || padding % 4 != 0 || !moves.patch_one(&mut one[..length - padding]) {
            return false;
        }
        rest = next;
    }
    true
}

impl Moves {
    fn patch_one(&self, packet: &mut [u8]) -> bool {
        let count = usize::from(packet[0] & 0x1f);
        match packet[1] {
            SENDER_REPORT if packet.len() >= 28 + REPORT * count => {
                put(packet, 4, self.sender);
                let timestamp = get(packet, 16).wrapping_add(self.timestamp);
                put(packet, 16, timestamp);
                self.reports(&mut packet[28..28 + REPORT * count]);
                true
            }
            RECEIVER_REPORT if packet.len() >= 8 + REPORT * count => {
                put(packet, 4, self.sender);
                self.reports(&mut packet[8..8 + REPORT * count]);
                true
            }
            DESCRIPTION => self.description(&mut packet[4..], count),
            BYE if packet.len() >= 4 + 4 * count => {
                for i in 0..count {
                    self.identify(packet, 4 + 4 * i);
                }
                true
            }
            APPLICATION if packet.len() >= 12 => {
                put(packet, 4, self.sender);
                true
            }
            TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK if packet.len() >= 12 => {
                put(packet, 4, self.sender);
                self.identify(packet, 8);
                match (packet[1], packet[0] & 0x1f) {
                    (TRANSPORT_FEEDBACK, NACK) => {
                        for lost in packet[12..].chunks_exact_mut(4) {
                            let seq = u16::from_be_bytes([lost[0], lost[1]]).wrapping_sub(self.seq);
                            lost[..2].copy_from_slice(&seq.to_be_bytes());
                        }
                    }
                    (PAYLOAD_FEEDBACK, FIR) => {
                        packet[12..].chunks_exact_mut(8).for_each(|entry| self.identify(entry, 0))
                    }
                    _ => {}
                }
                true
            }
            EXTENDED_REPORT if packet.len() >= 8 => {
                put(packet, 4, self.sender);
                self.extended(&mut packet[8..])
            }
            SENDER_REPORT | RECEIVER_REPORT | BYE | APPLICATION | TRANSPORT_FEEDBACK | PAYLOAD_FEEDBACK
            | EXTENDED_REPORT => false,
            // A kind that we do not know holds nothing that we could move; whoever reads it knows it.
            _ => true,
        }
    }

    fn reports(&self, blocks: &mut [u8]) {
        for block in blocks.chunks_exact_mut(REPORT) {
            self.identify(block, 0);
            let seq = u16::from_be_bytes([block[10], block[11]]).wrapping_sub(self.seq);
            block[10..12].copy_from_slice(&seq.to_be_bytes());
        }
    }

    /// Chunks of an SSRC and items up to a zero byte, each filled up to 4 bytes (RFC 3550 6.5).
    fn description(&self, mut chunks: &mut [u8], count: usize) -> bool {
        for _ in 0..count {
            if chunks.len() < 8 {
                return false;
            }
            self.identify(chunks, 0);
            let mut at = 4;
            loop {
                match chunks.get(at) {
                    None => return false,
                    Some(0) => break,
                    Some(_) => match chunks.get(at + 1) {
                        None => return false,
                        Some(length) => at += 2 + usize::from(*length),
                    },
                }
            }
            let end = (at + 4) & !3;
            if end > chunks.len() {
                return false;
            }
            chunks = &mut chunks[end..];
        }
        true
    }

    /// Report blocks of RFC 3611: those that name a source right after their head, and DLRR with its list.
    fn extended(&self, mut blocks: &mut [u8]) -> bool {
        while !blocks.is_empty() {
            if blocks.len() < 4 {
                return false;
            }
            let length = 4 * (usize::from(u16::from_be_bytes([blocks[2], blocks[3]])) + 1);
            if length > blocks.len() {
                return false;
            }
            let (block, next) = blocks.split_at_mut(length);
            match block[0] {
                1 | 2 | 3 | 6 | 7 if length >= 8 => self.identify(block, 4),
                5 => block[4..].chunks_exact_mut(12).for_each(|entry| self.identify(entry, 0)),
                _ => {}
            }
            blocks = next;
        }
        true
    }

    /// Moves one SSRC: the sender's stream is ours on the other side, and ours is the receiver's.
    fn identify(&self, packet: &mut [u8], at: usize) {
        let ssrc = get(packet, at);
        if Some(ssrc) == self.source {
            put(packet, at, self.sender);
        } else if let (true, Some(theirs)) = (ssrc == self.ours, self.theirs) {
            put(packet, at, theirs);
        }
    }
}

fn get(packet: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
}

fn put(packet: &mut [u8], at: usize, value: u32) {
    packet[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOVES: Moves =
        Moves { sender: 0xAAAA, source: Some(0x11), timestamp: 1000, ours: 0xBBBB, theirs: Some(0x22), seq: 5 };

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numbers_move_as_the_streams_did() {
        let block = |ssrc: u32, seq: u32| [ssrc, 0, seq, 0, 0, 0];
        let report =
            |sender, stamp, ssrc, seq| [&[0x81C8_000C, sender, 1, 2, stamp, 3, 4][..], &block(ssrc, seq)].concat();
        for (before, after) in [
            (report(0x11, 50, 0xBBBB, 0x0001_0064), report(0xAAAA, 1050, 0x22, 0x0001_005F)),
            (vec![0x80C9_0001, 0x77], vec![0x80C9_0001, 0xAAAA]),
            (vec![0x81CA_0002, 0x11, 0x0101_4100], vec![0x81CA_0002, 0xAAAA, 0x0101_4100]),
            (vec![0x82CB_0002, 0x11, 0x99], vec![0x82CB_0002, 0xAAAA, 0x99]),
            (vec![0x81CD_0003, 0x11, 0xBBBB, 0x0064_0000], vec![0x81CD_0003, 0xAAAA, 0x22, 0x005F_0000]),
            (vec![0x84CE_0004, 0x11, 0, 0xBBBB, 0x0100_0000], vec![0x84CE_0004, 0xAAAA, 0, 0x22, 0x0100_0000]),
            (vec![0x80CF_0005, 0x11, 0x0500_0003, 0xBBBB, 1, 2], vec![0x80CF_0005, 0xAAAA, 0x0500_0003, 0x22, 1, 2]),
            (vec![0x80D0_0001, 0x11], vec![0x80D0_0001, 0x11]),
        ] {
            let mut packet = words(&before);
            assert!(patch(&mut packet, &MOVES), "{before:x?}");
            assert_eq!(packet, words(&after), "{before:x?}");
            let mut twice = [words(&before), words(&before)].concat();
            assert!(patch(&mut twice, &MOVES));
            assert_eq!(twice, [words(&after), words(&after)].concat());
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for packet in [
            vec![],
            vec![0x80C9_0000],
            vec![0x80C9_0002, 1],
            vec![0x40C9_0001, 1],
            vec![0x81C9_0001, 1],
            vec![0x80C8_0001, 1],
            vec![0x8005_0001, 1],
            vec![0x81CA_0001, 0x0102_4100],
            vec![0x81CA_0002, 1, 0x01FF_4100],
            vec![0x9FCB_0001, 1],
            vec![0x80CF_0002, 1, 0x0500_0009],
            vec![0xA0C9_0001, 0xFF],
            vec![0xA0C9_0001, 0x03],
        ] {
            assert!(!patch(&mut words(&packet), &MOVES), "{packet:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 200u8..208) {
            let mut bytes = bytes;
            if bytes.len() > 4 {
                bytes[0] = bytes[0] & 0x3f | 0x80;
                bytes[1] = kind;
                let words = (bytes.len() / 4 - 1) as u16;
                bytes[2..4].copy_from_slice(&words.to_be_bytes());
            }
            let _ = patch(&mut bytes, &MOVES);
        }
    }
}
