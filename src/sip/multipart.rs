//! Finding the session description in a body of several parts (RFC 2046 5.1, RFC 5621). Bounded in parts and depth; nothing is decoded.

use super::chars;
use super::limits;
use super::message::Message;
use super::name::Name;
use super::uri::{Bad, Params};

const SDP: &str = "application/sdp";

impl Message {
    /// The session description: the body, or the first such part of a multipart body. `Ok(None)`: there is none. An error is a 400.
    pub fn sdp(&self) -> Result<Option<&[u8]>, Bad> {
        match self.text(Name::ContentType) {
            Some(kind) if !self.body().is_empty() => find(kind, self.body(), limits::DEPTH, &mut 0),
            _ => Ok(None),
        }
    }
}

/// Whether a Content-Type is some multipart.
fn is_multipart(kind: &str) -> bool {
    kind.get(..10).is_some_and(|k| k.eq_ignore_ascii_case("multipart/"))
}

fn find<'a>(kind: &str, body: &'a [u8], depth: usize, parts: &mut usize) -> Result<Option<&'a [u8]>, Bad> {
    let (name, params) = kind.split_at(kind.find(';').unwrap_or(kind.len()));
    if name.trim().eq_ignore_ascii_case(SDP) {
        return Ok(Some(body));
    }
    if !is_multipart(name) {
        return Ok(None);
    }
    let depth = depth.checked_sub(1).ok_or(Bad("multipart too deep"))?;
    let params = Params::parse(params.as_bytes())?;
    let boundary =
        params.get("boundary").filter(|b| (1..=70).contains(&b.len())).ok_or(Bad("boundary of multipart"))?;
    let delimiter = format!("\r\n--{boundary}");
    // The first one may stand at the very beginning.
    let mut rest = match body.strip_prefix(&delimiter.as_bytes()[2..]) {
        Some(rest) => rest,
        None => behind(body, &delimiter)?.1,
    };
    while !rest.starts_with(b"--") {
        *parts += 1;
        if *parts > limits::PARTS {
            return Err(Bad("too many parts"));
        }
        let begin = chars::skip(rest, 0);
        let part = rest[begin..].strip_prefix(b"\r\n").ok_or(Bad("delimiter of multipart"))?;
        // Backed by the line end that closes the delimiter, since an empty part has no other.
        let (_, next) = behind(&rest[begin..], &delimiter)?;
        let len = part.len().saturating_sub(next.len() + delimiter.len());
        let (kind, content) = split(&part[..len])?;
        if let Some(found) = find(kind, content, depth, parts)? {
            return Ok(Some(found));
        }
        rest = next;
    }
    Ok(None)
}

/// What stands before and behind the delimiter.
fn behind<'a>(bytes: &'a [u8], delimiter: &str) -> Result<(&'a [u8], &'a [u8]), Bad> {
    let at = memchr::memmem::find(bytes, delimiter.as_bytes()).ok_or(Bad("end of multipart"))?;
    Ok((&bytes[..at], &bytes[at + delimiter.len()..]))
}

/// A part's Content-Type and content.
fn split(part: &[u8]) -> Result<(&str, &[u8]), Bad> {
    const PLAIN: &str = "text/plain";
    if let Some(content) = part.strip_prefix(b"\r\n") {
        return Ok((PLAIN, content));
    }
    let Some(end) = memchr::memmem::find(part, b"\r\n\r\n") else { return Ok((PLAIN, &[])) };
    let mut kind = PLAIN;
    for line in part[..end].split(|&c| c == b'\n') {
        let colon = line.iter().position(|&c| c == b':').unwrap_or(line.len());
        if Name::from_bytes(chars::trim(&line[..colon])) == Name::ContentType {
            let value = chars::trim(line.get(colon + 1..).unwrap_or(&[]).trim_ascii_end());
            kind = std::str::from_utf8(value).map_err(|_| Bad("type of part"))?;
        }
    }
    Ok((kind, &part[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_description_is_found() {
        type Row<'a> = (&'a str, &'a str, Result<Option<&'a str>, ()>);
        let table: &[Row<'_>] = &[
            ("application/sdp", "v=0", Ok(Some("v=0"))),
            ("Application/SDP ; charset=utf-8", "v=0", Ok(Some("v=0"))),
            ("text/plain", "v=0", Ok(None)),
            ("multipart/mixed;boundary=x", "--x\r\nc: application/sdp\r\n\r\nv=0\r\n\r\n--x--", Ok(Some("v=0\r\n"))),
            (
                "multipart/mixed;boundary=\"x y\"",
                "\r\n--x y \r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--x y--\r\n",
                Ok(Some("v=0")),
            ),
            (
                "multipart/mixed;boundary=x",
                "hello\r\n--x\r\n\r\ntext\r\n--x\r\nContent-ID: <a>\r\nc : application/sdp;a=b\r\n\r\nv\r\n--x--",
                Ok(Some("v")),
            ),
            ("multipart/mixed;boundary=x", "--x\r\n\r\n--x\r\n\r\n\r\n--x--", Ok(None)),
            (
                "multipart/mixed;boundary=x",
                "--x\r\nc: multipart/alternative;boundary=y\r\n\r\n--y\r\nc: application/sdp\r\n\r\nv\r\n--y--\r\n--x--",
                Ok(Some("v")),
            ),
            (
                "multipart/mixed;boundary=x",
                "--x\r\nc: multipart/a;boundary=y\r\n\r\n--y\r\nc: multipart/a;boundary=z\r\n\r\n--z\r\n\r\n--z--\r\n--y--\r\n--x--",
                Err(()),
            ),
            ("multipart/mixed", "--x\r\n\r\n--x--", Err(())),
            ("multipart/mixed;boundary=", "--\r\n\r\n----", Err(())),
            ("multipart/mixed;boundary=x", "--x\r\nc: application/sdp\r\n\r\nv=0", Err(())),
            ("multipart/mixed;boundary=x", "nothing", Err(())),
            ("multipart/mixed;boundary=x", "--xy\r\n\r\n--x--", Err(())),
        ];
        for (kind, body, expected) in table {
            let got = find(kind, body.as_bytes(), limits::DEPTH, &mut 0).map_err(drop);
            assert_eq!(got, expected.map(|o| o.map(str::as_bytes)), "{kind} {body:?}");
        }
        let many = "--x\r\n\r\na\r\n".repeat(limits::PARTS + 1) + "--x--";
        assert!(find("multipart/mixed;boundary=x", many.as_bytes(), limits::DEPTH, &mut 0).is_err());
    }
}
