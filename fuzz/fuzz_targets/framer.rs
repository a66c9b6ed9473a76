//! A stream: cut in two ways it gives the same messages, and never holds more than it may. The first byte says how it is cut.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strowger::sip::{Framer, limits};

fn frames(data: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let mut framer = Framer::default();
    let mut out = Vec::new();
    for piece in data.chunks(step) {
        framer.push(piece);
        loop {
            match framer.next() {
                // A body that lasts until the stream's end depends on the cut.
                Ok(Some(_)) if framer.is_ended() => return (out, false),
                Ok(Some(message)) => out.push(message),
                Ok(None) => break,
                Err(_) => return (out, true),
            }
        }
        assert!(framer.len() <= limits::MESSAGE + step);
    }
    (out, false)
}

fuzz_target!(|data: &[u8]| {
    let Some((step, data)) = data.split_first() else { return };
    assert_eq!(frames(data, usize::from(*step).max(1)), frames(data, data.len().max(1)));
});
