//! Polycom's group paging over multicast (their engineering advisory 70568): a framing of its own, not RTP. A page is 31
//! alerts 30 ms apart, then the sound, each packet with the frame before it once more so that one lost packet is not heard,
//! then 12 ends. Packets are made here; sending and pacing are the worker's.

use std::time::Duration;

/// Where phones listen unless told otherwise: `224.0.1.116:5001`.
pub const GROUP: &str = "224.0.1.116:5001";
/// Alerts before the sound.
pub const ALERTS: u32 = 31;
/// Ends after it.
pub const ENDS: u32 = 12;
/// Between two alerts, and between two ends.
pub const GAP: Duration = Duration::from_millis(30);
/// Bytes of a header.
pub const HEADER: usize = 20;
/// Bytes of what stands between header and sound: codec, flags, sample count.
const AUDIO_HEADER: usize = 6;
/// Bytes of the caller's name; shorter ones are filled up with zeros, longer ones cut.
const NAME: usize = 13;

const ALERT: u8 = 0x0f;
const TRANSMIT: u8 = 0x10;
const END: u8 = 0xff;
/// G.711 µ-law.
const PCMU: u8 = 0x00;

/// A page in progress.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    channel: u8,
    serial: u32,
    name: [u8; NAME],
    samples: u32,
    last: Vec<u8>,
}

impl Page {
    /// A page on a channel (1 to 25 push-to-talk, 26 to 50 paging). `serial` tells talkers apart. Of the name only ASCII is shown.
    pub fn new(channel: u8, serial: u32, name: &str) -> Page {
        let mut bytes = [0; NAME];
        let shown = name.bytes().filter(|b| (b' '..0x7f).contains(b));
        bytes.iter_mut().zip(shown).for_each(|(to, from)| *to = from);
        Page { channel, serial, name: bytes, samples: 0, last: Vec::new() }
    }

    /// An alert.
    pub fn alert(&self) -> [u8; HEADER] {
        self.header(ALERT)
    }

    /// An end.
    pub fn end(&self) -> [u8; HEADER] {
        self.header(END)
    }

    /// A frame of µ-law, 8,000 samples a second, behind the one before it.
    pub fn transmit(&mut self, frame: &[u8]) -> Vec<u8> {
        self.samples = self.samples.wrapping_add(frame.len() as u32);
        let mut packet = Vec::with_capacity(HEADER + AUDIO_HEADER + self.last.len() + frame.len());
        packet.extend_from_slice(&self.header(TRANSMIT));
        packet.extend_from_slice(&[PCMU, 0]);
        packet.extend_from_slice(&self.samples.to_be_bytes());
        packet.extend_from_slice(&self.last);
        packet.extend_from_slice(frame);
        self.last.clear();
        self.last.extend_from_slice(frame);
        packet
    }

    fn header(&self, opcode: u8) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[0] = opcode;
        header[1] = self.channel;
        header[2..6].copy_from_slice(&self.serial.to_be_bytes());
        header[6] = NAME as u8;
        header[7..].copy_from_slice(&self.name);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_laid_out_as_the_advisory_says() {
        let mut page = Page::new(25, 0x0102_0304, "Shop floor");
        assert_eq!(&page.alert()[..], b"\x0f\x19\x01\x02\x03\x04\x0dShop floor\0\0\0");
        assert_eq!(page.end()[0], 0xff);
        let first = page.transmit(&[0x11; 160]);
        assert_eq!(
            &first[..HEADER + AUDIO_HEADER],
            b"\x10\x19\x01\x02\x03\x04\x0dShop floor\0\0\0\x00\x00\x00\x00\x00\xa0"
        );
        assert_eq!(first.len(), HEADER + AUDIO_HEADER + 160, "there is no frame before the first");
        let second = page.transmit(&[0x22; 160]);
        assert_eq!(second[HEADER + 2..HEADER + 6], 320u32.to_be_bytes());
        assert_eq!(second[HEADER + AUDIO_HEADER..], [[0x11; 160], [0x22; 160]].concat());
    }

    #[test]
    fn names_are_cut_and_cleaned() {
        assert_eq!(&Page::new(26, 0, "A name too long to fit").alert()[7..], b"A name too lo");
        assert_eq!(&Page::new(26, 0, "Цех 1\r\n").alert()[7..10], b" 1\0");
    }
}
