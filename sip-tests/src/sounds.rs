//! The sounds that the world's server plays, and an ear that knows them again by their packets.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use strowger::media::codec::{Encoder, NARROW};
use strowger::media::sound::{FRAME, Language, Library, Sound};
use strowger::media::tone::Tone;
use strowger::media::{Codec, ear};

static LIBRARY: LazyLock<Arc<Library>> = LazyLock::new(|| {
    let mut library = Library::own(Language::Russian);
    // Two seconds each. Their samples rise and fall, so that no packet is like another's.
    for (name, hz) in [("closed.wav", 611), ("music.wav", 773)] {
        let samples: Vec<i16> = Tone::new(hz, NARROW).take(16_000).collect();
        library.put(name, Sound::new(&samples, NARROW));
    }
    Arc::new(library)
});

/// Whose packet it is; none for one that several have, such as silence.
static NAMES: LazyLock<HashMap<Vec<u8>, Option<String>>> = LazyLock::new(|| {
    let mut names: HashMap<Vec<u8>, Option<String>> = HashMap::new();
    for (name, sound) in LIBRARY.iter() {
        for codec in [Codec::Pcma, Codec::Pcmu, Codec::G722] {
            for frame in (0..).map_while(|n| sound.frame(codec, n)) {
                let known = names.entry(frame.to_vec()).or_insert_with(|| Some(name.to_string()));
                if known.as_deref() != Some(&**name) {
                    *known = None;
                }
            }
        }
    }
    // A key in the sound is nobody's sound; some of it may still pass when it has been understood.
    for key in "123456789*0#".chars() {
        for codec in [Codec::Pcma, Codec::Pcmu] {
            names.extend(Encoder::new(codec).encode(&key_samples(key)).chunks(FRAME).map(|f| (f.to_vec(), None)));
        }
    }
    names
});

/// A key as sound: 40 ms of silence, 100 ms of its two tones, 60 ms of silence.
pub fn key_samples(key: char) -> Vec<i16> {
    let silence = |frames| std::iter::repeat_n(0, frames * FRAME);
    silence(2).chain(ear::sound_of(key, 100, 6000.0)).chain(silence(3)).collect()
}

/// What the server plays: its own sounds, and the operator's `closed.wav` and `music.wav`.
pub fn library() -> Arc<Library> {
    LIBRARY.clone()
}

/// Whether a payload is of a sound, and of which if that can be told.
pub fn known(payload: &[u8]) -> Option<Option<&'static str>> {
    NAMES.get(payload).map(Option::as_deref)
}
