//! Character classes of RFC 3261 section 25.1, one table lookup a byte. No grammar here.

/// `token`.
pub(super) const TOKEN: u8 = 1;
/// Letters, digits, `-`, `.`, and `_` (which no host should have, but some do).
pub(super) const HOST: u8 = 2;
/// `user` and `password` without `%`, and `#`, which phones send unescaped.
pub(super) const USER: u8 = 4;
/// What stands behind `=` in a header parameter: token, host, and whatever else cannot be mistaken for structure.
pub(super) const VALUE: u8 = 8;
/// `paramchar` and `hnv-unreserved` of a URI, `%`, `=`, and separators excluded.
pub(super) const PARAM: u8 = 16;
/// Inside the brackets of an IPv6 reference.
pub(super) const IPV6: u8 = 32;
/// Visible ASCII.
pub(super) const VISIBLE: u8 = 64;
/// A display name without quotes: token, space, tab, UTF-8 and what cannot be mistaken for structure.
pub(super) const DISPLAY: u8 = 128;

static CLASS: [u8; 256] = build();

const fn holds(set: &[u8], c: u8) -> bool {
    let mut i = 0;
    while i < set.len() {
        if set[i] == c {
            return true;
        }
        i += 1;
    }
    false
}

const fn build() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let c = i as u8;
        let mut class = 0;
        let alnum = c.is_ascii_alphanumeric();
        let high = c >= 0x80;
        if alnum || holds(b"-.!%*_+`'~", c) {
            class |= TOKEN;
        }
        if alnum || holds(b"-._", c) {
            class |= HOST;
        }
        if alnum || holds(b"-_.!~*'()&=+$,;?/#", c) {
            class |= USER;
        }
        if c > b' ' && c < 0x7f && !holds(b"\",;<>\\", c) {
            class |= VALUE;
        }
        if alnum || holds(b"-_.!~*'()[]/:&+$%=?", c) {
            class |= PARAM;
        }
        if c.is_ascii_hexdigit() || c == b':' || c == b'.' {
            class |= IPV6;
        }
        if c > b' ' && c < 0x7f {
            class |= VISIBLE;
        }
        if high || c == b'\t' || (c >= b' ' && c < 0x7f && !holds(b"\",;<>\\", c)) {
            class |= DISPLAY;
        }
        table[i] = class;
        i += 1;
    }
    table
}

/// Whether `c` is of the class.
#[inline]
pub(super) fn is(c: u8, class: u8) -> bool {
    CLASS[c as usize] & class != 0
}

/// Whether every byte is of the class; true for none.
#[inline]
pub(super) fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().fold(class, |seen, &c| seen & CLASS[c as usize]) != 0
}

/// How many bytes from the start are of the class.
#[inline]
pub(super) fn run(bytes: &[u8], class: u8) -> usize {
    let of = |c: u8| CLASS[c as usize];
    let mut at = 0;
    while let Some(&[a, b, c, d]) = bytes.get(at..at + 4) {
        if of(a) & of(b) & of(c) & of(d) & class == 0 {
            break;
        }
        at += 4;
    }
    while at < bytes.len() && is(bytes[at], class) {
        at += 1;
    }
    at
}

/// Whether `c` is a space or a tab: all that is left of LWS once folds are joined.
#[inline]
pub(super) fn blank(c: u8) -> bool {
    c == b' ' || c == b'\t'
}

/// The position of the first byte at or after `at` that is no space or tab.
#[inline]
pub(super) fn skip(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && blank(bytes[at]) {
        at += 1;
    }
    at
}

/// The bytes without spaces and tabs at either end.
#[inline]
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && blank(*last)
    {
        bytes = rest;
    }
    bytes
}

/// The position of the first byte below space at or after `at`, or the end.
#[inline]
pub(super) fn control(buf: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // The lowest byte that it marks is right: a borrow can only come from a byte that is marked itself.
    let marks = |word: u64| word.wrapping_sub(ONES * 0x20) & !word & (ONES * 0x80);
    while let Some(piece) = buf.get(at..at + 16) {
        let (low, high) = piece.split_at(8);
        let low = marks(u64::from_le_bytes(low.try_into().expect("eight bytes")));
        let high = marks(u64::from_le_bytes(high.try_into().expect("eight bytes")));
        if low != 0 {
            return at + low.trailing_zeros() as usize / 8;
        }
        if high != 0 {
            return at + 8 + high.trailing_zeros() as usize / 8;
        }
        at += 16;
    }
    at + buf[at..].iter().position(|&c| c < b' ').unwrap_or(buf.len() - at)
}

/// Whether no byte is below space.
#[inline]
pub(super) fn tame(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let marks = |piece: &[u8]| {
        let word = u64::from_le_bytes(piece.try_into().expect("eight bytes"));
        word.wrapping_sub(ONES * 0x20) & !word & (ONES * 0x80)
    };
    let Some(last) = bytes.last_chunk::<8>() else { return bytes.iter().all(|&c| c >= b' ') };
    bytes.chunks_exact(8).fold(marks(last), |seen, piece| seen | marks(piece)) == 0
}

/// A decimal number, digits only, at most `max`.
#[inline]
pub(super) fn number(bytes: &[u8], max: u64) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    let mut n: u64 = 0;
    for &c in bytes {
        if !c.is_ascii_digit() {
            return None;
        }
        n = n.checked_mul(10)?.checked_add(u64::from(c - b'0'))?;
    }
    (n <= max).then_some(n)
}

/// The end of a quoted string that starts at `at` with `"`: the position behind its closing quote.
#[inline]
pub(super) fn quoted_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut i = at + 1;
    loop {
        i += memchr::memchr2(b'"', b'\\', bytes.get(i..)?)?;
        if bytes[i] == b'"' {
            return Some(i + 1);
        }
        i += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        for text in ["", "a", "abcdefg", "abcdefgh", "abcdefghijklmno", "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}"] {
            assert!(tame(text.as_bytes()));
            for at in 0..=text.len() {
                let mut bytes = text.as_bytes().to_vec();
                bytes.insert(at, b'\x1f');
                assert!(!tame(&bytes) && control(&bytes, 0) == at, "{bytes:?}");
            }
        }
        assert!(all(b"a-.!%*_+`'~", TOKEN) && !all(b"a b", TOKEN) && !all(b"a:b", TOKEN) && all(b"", TOKEN));
        assert_eq!(run(b"abc;d", TOKEN), 3);
        assert_eq!(trim(b" \t a b \t"), b"a b");
        assert_eq!(number(b"0068", 255), Some(68));
        assert_eq!(number(b"256", 255), None);
        assert_eq!(number(b"36893488147419103232", u64::MAX), None);
        assert_eq!(number(b"-1", 255), None);
        assert_eq!(number(b"", 255), None);
        assert_eq!(quoted_end(br#""a\"b"c"#, 0), Some(6));
        assert_eq!(quoted_end(br#""a\"#, 0), None);
        assert_eq!(quoted_end(b"\"", 0), None);
    }
}
