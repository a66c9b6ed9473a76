//! Telephone events (RFC 4733): digits as packets. The reader counts each key once however often its end is repeated and
//! whether or not its first packets or the marker arrived; the writer makes what a phone sends while a key is held.

use super::packet::{Header, Sender};

/// Bytes of an event payload.
const PAYLOAD: usize = 4;
/// Highest event that is a key: 0 to 9, `*`, `#`, A to D. Others (hook flash, modem tones) are not digits.
const MAX_KEY: u8 = 15;
/// How often the end of an event is sent (RFC 4733 2.5.1.4).
const END_REPEATS: usize = 3;
/// Clock ticks (8 kHz) between two packets of an event: 20 ms.
const TICKS: u16 = 160;
/// How far behind the last press a packet may lie and still belong to an earlier one: 5 s in clock ticks.
const MAX_LATE: u32 = 5 * 8000;
/// Volume of generated events, in -dBm0.
const VOLUME: u8 = 10;
const KEYS: &[u8; 16] = b"0123456789*#ABCD";

/// Reads the keys of one stream.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Source and timestamp of the last key that was counted.
    last: Option<(u32, u32)>,
}

impl Reader {
    /// Takes a packet of the event payload type. The key, once, at its first packet that arrives.
    pub fn packet(&mut self, header: &Header, payload: &[u8]) -> Option<char> {
        let event = *payload.get(..PAYLOAD)?.first().filter(|event| **event <= MAX_KEY)?;
        // All packets of a press have the timestamp of its begin. A little back is a late packet of an earlier press; far
        // back is a sender that began anew.
        if self.last.is_some_and(|(ssrc, last)| ssrc == header.ssrc && last.wrapping_sub(header.timestamp) <= MAX_LATE)
        {
            return None;
        }
        self.last = Some((header.ssrc, header.timestamp));
        Some(char::from(KEYS[usize::from(event)]))
    }
}

/// The packets of one key, in order, 20 ms apart but for the last two, which repeat the end. `sender` is left at the
/// timestamp after the event. Nothing for what is no key.
pub fn press(sender: &mut Sender, payload_type: u8, key: char, milliseconds: u16) -> Vec<Vec<u8>> {
    let Some(event) = KEYS.iter().position(|k| char::from(*k) == key.to_ascii_uppercase()) else { return Vec::new() };
    let steps = (milliseconds / 20).clamp(1, u16::MAX / TICKS);
    let payload = |step: u16, end: bool| {
        let duration = (step * TICKS).to_be_bytes();
        [event as u8, u8::from(end) << 7 | VOLUME, duration[0], duration[1]]
    };
    let mut packets: Vec<_> =
        (1..=steps).map(|step| sender.packet(payload_type, step == 1, &payload(step, false))).collect();
    packets.extend((0..END_REPEATS).map(|_| sender.packet(payload_type, false, &payload(steps, true))));
    sender.advance(u32::from(steps) * u32::from(TICKS));
    packets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut Reader, packets: &[Vec<u8>]) -> String {
        let keys = packets.iter().filter_map(|packet| {
            let header = Header::parse(packet)?;
            reader.packet(&header, &packet[header.start..header.end])
        });
        keys.collect()
    }

    #[test]
    fn every_key_is_counted_once() {
        let mut sender = Sender::new(1, 65530, u32::MAX - 1000);
        let mut packets = Vec::new();
        for key in "0123456789*#ABCD11".chars() {
            packets.extend(press(&mut sender, 101, key, 100));
            sender.advance(400);
        }
        assert_eq!(packets.len(), 18 * 8);
        assert_eq!(read(&mut Reader::default(), &packets), "0123456789*#ABCD11");
        // Without the beginnings (and so without markers), with the ends only.
        let ends: Vec<_> = packets.iter().filter(|p| p[13] & 0x80 != 0).cloned().collect();
        assert_eq!(ends.len(), 18 * 3);
        assert_eq!(read(&mut Reader::default(), &ends), "0123456789*#ABCD11");
        // Twice each, and the last two presses out of order.
        let twice: Vec<_> = packets.iter().flat_map(|p| [p.clone(), p.clone()]).collect();
        assert_eq!(read(&mut Reader::default(), &twice), "0123456789*#ABCD11");
        let mut late = packets[..16].to_vec();
        late.swap(7, 8);
        assert_eq!(read(&mut Reader::default(), &late), "01");
    }

    #[test]
    fn what_is_no_key_is_none() {
        let mut sender = Sender::new(1, 0, 0);
        for payload in [&[16u8, 10, 0, 160][..], &[255, 0, 0, 0], &[1, 10, 0], &[]] {
            let packet = sender.packet(101, true, payload);
            sender.advance(160);
            assert_eq!(read(&mut Reader::default(), &[packet]), "", "{payload:?}");
        }
        assert!(press(&mut sender, 101, 'x', 100).is_empty());
    }

    #[test]
    fn a_new_source_or_a_restart_is_a_new_press() {
        let mut reader = Reader::default();
        for (ssrc, timestamp, keys) in [(1, 9_000_000, "5"), (2, 9_000_000, "5"), (2, 1000, "5"), (2, 1000, "")] {
            let packets = press(&mut Sender::new(ssrc, 0, timestamp), 101, '5', 60);
            assert_eq!(read(&mut reader, &packets), keys, "{ssrc} {timestamp}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let _ = read(&mut Reader::default(), &packets);
        }
    }
}
