//! The little SDP that a telephone speaks (RFC 8866, RFC 3264): one audio stream, G.711 and telephone-event, other streams
//! refused with port 0.

use std::net::{IpAddr, SocketAddr};

/// Direction of a stream as an attribute says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// The writer only sends.
    SendOnly,
    /// The writer only listens.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Whether the writer of it sends.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether the writer of it listens.
    pub fn hears(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// From what each side is willing to do.
    pub fn of(sends: bool, hears: bool) -> Direction {
        match (sends, hears) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// A session description as far as a phone cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sdp {
    /// Session version in `o=`.
    pub version: u64,
    /// Session id in `o=`.
    pub session: u64,
    /// The streams.
    pub media: Vec<Media>,
}

/// One `m=` block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Media {
    /// `audio`, `video`, …
    pub kind: String,
    /// Port; 0 refuses.
    pub port: u16,
    /// `RTP/AVP`, …
    pub proto: String,
    /// Formats.
    pub formats: Vec<String>,
    /// `a=rtpmap` names by payload type.
    pub names: Vec<(String, String)>,
    /// Connection address of it.
    pub address: Option<IpAddr>,
    /// Direction.
    pub direction: Direction,
}

impl Sdp {
    /// Reads; an error is a fault of the writer.
    pub fn read(body: &[u8]) -> Result<Sdp, String> {
        let text = std::str::from_utf8(body).map_err(|_| "SDP is not UTF-8")?;
        let mut sdp = Sdp { version: 0, session: 0, media: Vec::new() };
        let (mut address, mut direction) = (None, Direction::SendRecv);
        let mut seen = String::new();
        for line in text.split_terminator('\n').map(|l| l.trim_end_matches('\r')) {
            let (kind, value) = line.split_once('=').ok_or_else(|| format!("SDP line {line:?}"))?;
            if sdp.media.is_empty() {
                seen.push_str(kind);
            }
            match kind {
                "o" => {
                    let words: Vec<&str> = value.split(' ').collect();
                    if words.len() != 6 {
                        return Err(format!("SDP line {line:?}"));
                    }
                    sdp.session = words[1].parse().map_err(|_| format!("SDP line {line:?}"))?;
                    sdp.version = words[2].parse().map_err(|_| format!("SDP line {line:?}"))?;
                }
                "c" => {
                    let ip = value.split(' ').nth(2).and_then(|a| a.split('/').next()).and_then(|a| a.parse().ok());
                    let ip: IpAddr = ip.ok_or_else(|| format!("SDP line {line:?}"))?;
                    match sdp.media.last_mut() {
                        Some(media) => media.address = Some(ip),
                        None => address = Some(ip),
                    }
                }
                "m" => {
                    let words: Vec<&str> = value.split(' ').collect();
                    if words.len() < 4 {
                        return Err(format!("SDP line {line:?}"));
                    }
                    let port = words[1].split('/').next().and_then(|p| p.parse().ok());
                    sdp.media.push(Media {
                        kind: words[0].into(),
                        port: port.ok_or_else(|| format!("SDP line {line:?}"))?,
                        proto: words[2].into(),
                        formats: words[3..].iter().map(|f| f.to_string()).collect(),
                        names: Vec::new(),
                        address,
                        direction,
                    });
                }
                "a" => {
                    let word = match value {
                        "sendrecv" => Some(Direction::SendRecv),
                        "sendonly" => Some(Direction::SendOnly),
                        "recvonly" => Some(Direction::RecvOnly),
                        "inactive" => Some(Direction::Inactive),
                        _ => None,
                    };
                    match (word, sdp.media.last_mut()) {
                        (Some(word), Some(media)) => media.direction = word,
                        (Some(word), None) => direction = word,
                        (None, Some(media)) => {
                            if let Some((pt, name)) = value.strip_prefix("rtpmap:").and_then(|v| v.split_once(' ')) {
                                media.names.push((pt.into(), name.into()));
                            }
                        }
                        (None, None) => {}
                    }
                }
                _ => {}
            }
        }
        if !seen.starts_with("vos") || !seen.contains('t') && sdp.media.is_empty() {
            return Err(format!("SDP lines in the order {seen:?}"));
        }
        Ok(sdp)
    }

    /// The audio stream that is in use.
    pub fn audio(&self) -> Option<&Media> {
        self.media.iter().find(|m| m.kind == "audio" && m.port != 0)
    }
}

impl Media {
    /// Where its packets are to be sent; none for port 0 and for the old hold address 0.0.0.0.
    pub fn target(&self) -> Option<SocketAddr> {
        self.address.filter(|a| !a.is_unspecified() && self.port != 0).map(|a| SocketAddr::new(a, self.port))
    }

    /// Encoding name of a format, lower case, e.g. `pcma/8000`.
    pub fn name(&self, format: &str) -> String {
        let named = self.names.iter().find(|(pt, _)| pt == format).map(|(_, name)| name.to_ascii_lowercase());
        named.unwrap_or_else(|| match format {
            "0" => "pcmu/8000".into(),
            "8" => "pcma/8000".into(),
            "9" => "g722/8000".into(),
            other => other.into(),
        })
    }
}

/// Our side of one audio stream, to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ours {
    /// Address and port; port 0 and so on is the writer's matter.
    pub address: SocketAddr,
    /// `c=0.0.0.0`, the hold of RFC 2543.
    pub zero: bool,
    /// Session id.
    pub session: u64,
    /// Session version.
    pub version: u64,
    /// Direction.
    pub direction: Direction,
    /// Payload types with names, in order.
    pub formats: Vec<(u8, String)>,
    /// Extra lines behind the audio block, e.g. a video stream.
    pub extra: String,
}

impl Ours {
    /// As an offer.
    pub fn offer(&self) -> String {
        let mut out = self.head();
        out.push_str(&self.audio(&self.formats));
        out.push_str(&self.extra);
        out
    }

    /// As an answer to `offer` (RFC 3264 section 6): as many streams in the same order, formats out of the offered ones.
    pub fn answer(&self, offer: &Sdp) -> String {
        let mut out = self.head();
        let mut taken = false;
        for media in &offer.media {
            let kept: Vec<(u8, String)> = media
                .formats
                .iter()
                .filter(|f| self.formats.iter().any(|(_, name)| name.to_ascii_lowercase() == media.name(f)))
                .filter_map(|f| Some((f.parse().ok()?, media.name(f))))
                .collect();
            let audio = kept.iter().any(|(_, name)| !name.starts_with("telephone-event"));
            if media.kind == "audio" && media.port != 0 && audio && !taken {
                taken = true;
                out.push_str(&self.audio(&kept));
            } else {
                out.push_str(&format!("m={} 0 {} {}\r\n", media.kind, media.proto, media.formats.join(" ")));
            }
        }
        out
    }

    fn head(&self) -> String {
        let ip = if self.zero { "0.0.0.0".to_owned() } else { self.address.ip().to_string() };
        let (session, version, own) = (self.session, self.version, self.address.ip());
        let family = if own.is_ipv4() { "IP4" } else { "IP6" };
        format!("v=0\r\no=- {session} {version} IN {family} {own}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n")
    }

    fn audio(&self, formats: &[(u8, String)]) -> String {
        let list: Vec<String> = formats.iter().map(|(pt, _)| pt.to_string()).collect();
        let mut out = format!("m=audio {} RTP/AVP {}\r\n", self.address.port(), list.join(" "));
        for (pt, name) in formats {
            out.push_str(&format!("a=rtpmap:{pt} {name}\r\n"));
            if name.starts_with("telephone-event") {
                out.push_str(&format!("a=fmtp:{pt} 0-16\r\n"));
            }
        }
        out.push_str(&format!("a=ptime:20\r\na={}\r\n", self.direction.word()));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_as_many_streams_as_the_offer() {
        let ours = Ours {
            address: "10.0.0.1:4000".parse().expect("an address"),
            zero: false,
            session: 1,
            version: 1,
            direction: Direction::SendRecv,
            formats: vec![(8, "PCMA/8000".into()), (101, "telephone-event/8000".into())],
            extra: "m=video 4002 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n".into(),
        };
        let offer = Sdp::read(ours.offer().as_bytes()).expect("our offer");
        let answer = Sdp::read(ours.answer(&offer).as_bytes()).expect("our answer");
        assert_eq!(answer.media.iter().map(|m| m.port).collect::<Vec<_>>(), [4000, 0]);
        assert_eq!(answer.media[0].target(), Some(ours.address));
    }
}
