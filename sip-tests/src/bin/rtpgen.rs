//! A generator and sink of calls with media, for measuring a server from outside: it plays the caller and the phone of every call at
//! once, sends RTP both ways and says what was lost and how long the rest was under way. `benches/peers/run` drives it.
//!
//! Modes: `media` (N calls at P packets a second each way, through a SIP server, through rtpengine's ng protocol, or direct) and
//! `latency` (INVITE to 180, one call at a time). Standard library only; it spins, so give it a core of its own. It does not register:
//! the binding of the phone's port is made beforehand. It is not a SIP stack: loopback, UDP, no digest, no loss worth speaking of.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long we wait for an answer before a request goes out again.
const RESEND: Duration = Duration::from_millis(500);
/// How long all calls together may take to come up or to go down, beyond the time that their pace needs.
const PATIENCE: Duration = Duration::from_secs(8);
/// Calls that share one media socket: few sockets are cheap to poll, and the server cannot tell.
const CALLS_PER_SOCKET: usize = 10;
/// Bytes of G.711 in a packet, whatever the rate of packets.
const PAYLOAD: usize = 160;
/// Marks our payloads.
const MAGIC: &[u8; 4] = b"rgen";
/// Upper end of the delay histogram; a packet later than this is counted here.
const DELAY_MAX_US: usize = 200_000;

fn main() -> ExitCode {
    let options = match Options::from_args(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("rtpgen: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = match options.mode.as_str() {
        "media" => media(&options),
        "latency" => latency(&options),
        other => Err(format!("unknown mode {other}\n{USAGE}")),
    };
    match outcome {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("rtpgen: {error}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str =
    "usage: rtpgen media|latency [--server ADDR | --ng ADDR [--record] | --direct] --uac PORT --uas PORT [--media PORT]
       [--number N,N...] [--calls N] [--rate CALLS_PER_SECOND] [--pps N] [--warm S] [--seconds S] [--idle]
media prints 'up', 'window', 'done' (one word a line) as it goes, then one JSON object; --idle sends no RTP at all";

struct Options {
    mode: String,
    server: Option<SocketAddr>,
    ng: Option<SocketAddr>,
    record: bool,
    direct: bool,
    idle: bool,
    uac: u16,
    uas: u16,
    media: u16,
    number: String,
    calls: usize,
    rate: f64,
    pps: u32,
    warm: f64,
    seconds: f64,
}

impl Options {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            mode: args.next().ok_or("a mode is missing")?,
            server: None,
            ng: None,
            record: false,
            direct: false,
            idle: false,
            uac: 0,
            uas: 0,
            media: 0,
            number: "+73433000001".into(),
            calls: 500,
            rate: 100.0,
            pps: 50,
            warm: 2.0,
            seconds: 10.0,
        };
        while let Some(key) = args.next() {
            let mut value = || args.next().ok_or(format!("{key} needs a value"));
            match key.as_str() {
                "--server" => options.server = Some(parsed(&value()?)?),
                "--ng" => options.ng = Some(parsed(&value()?)?),
                "--record" => options.record = true,
                "--direct" => options.direct = true,
                "--idle" => options.idle = true,
                "--uac" => options.uac = parsed(&value()?)?,
                "--uas" => options.uas = parsed(&value()?)?,
                "--media" => options.media = parsed(&value()?)?,
                "--number" => options.number = value()?,
                "--calls" => options.calls = parsed(&value()?)?,
                "--rate" => options.rate = parsed(&value()?)?,
                "--pps" => options.pps = parsed(&value()?)?,
                "--warm" => options.warm = parsed(&value()?)?,
                "--seconds" => options.seconds = parsed(&value()?)?,
                _ => return Err(format!("unknown option {key}")),
            }
        }
        if options.calls == 0 || options.pps == 0 || options.rate <= 0.0 {
            return Err("--calls, --pps and --rate must be positive".into());
        }
        Ok(options)
    }
}

fn parsed<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("cannot read '{text}'"))
}

fn loopback(port: u16) -> Result<UdpSocket, String> {
    let socket = UdpSocket::bind(("127.0.0.1", port)).map_err(|e| format!("127.0.0.1:{port}: {e}"))?;
    socket.set_nonblocking(true).map_err(|e| e.to_string())?;
    Ok(socket)
}

fn said(word: &str) {
    println!("{word}");
    let _ = io::stdout().flush();
}

// ---- media -----------------------------------------------------------------------------------------------------------

/// Where each side of each call sends to, once the calls are up.
struct Streams {
    /// The caller's packets go here.
    from_caller: Vec<SocketAddr>,
    /// The phone's packets go here.
    from_phone: Vec<SocketAddr>,
}

fn media(options: &Options) -> Result<String, String> {
    let count = options.calls.div_ceil(CALLS_PER_SOCKET);
    let sockets = |base: u16| -> Result<Vec<UdpSocket>, String> {
        (0..count).map(|i| loopback(if base == 0 { 0 } else { base + 2 * i as u16 })).collect()
    };
    let callers = sockets(options.media)?;
    let phones = sockets(if options.media == 0 { 0 } else { options.media + 2 * count as u16 })?;
    let port = |list: &[UdpSocket], call: usize| {
        list[call / CALLS_PER_SOCKET].local_addr().map(|a| a.port()).map_err(|e| e.to_string())
    };
    let caller_ports = (0..options.calls).map(|i| port(&callers, i)).collect::<Result<Vec<u16>, String>>()?;
    let phone_ports = (0..options.calls).map(|i| port(&phones, i)).collect::<Result<Vec<u16>, String>>()?;

    let mut signalling = Signalling::None;
    let streams = if let Some(ng) = options.ng {
        let mut engine = Ng::new(ng)?;
        let streams = engine.establish(options, &caller_ports, &phone_ports)?;
        signalling = Signalling::Ng(engine);
        streams
    } else if let Some(server) = options.server {
        let mut calls = Calls::new(options, server, caller_ports, phone_ports)?;
        calls.establish()?;
        let streams = calls.streams()?;
        signalling = Signalling::Sip(Box::new(calls));
        streams
    } else if options.direct {
        let to = |ports: &[u16]| ports.iter().map(|&p| SocketAddr::from(([127, 0, 0, 1], p))).collect();
        Streams { from_caller: to(&phone_ports), from_phone: to(&caller_ports) }
    } else {
        return Err(format!("one of --server, --ng, --direct is needed\n{USAGE}"));
    };
    said("up");

    let report = if options.idle {
        let until = Instant::now() + Duration::from_secs_f64(options.warm);
        signalling.serve_until(until);
        said("window");
        signalling.serve_until(until + Duration::from_secs_f64(options.seconds));
        said("done");
        Report::default()
    } else {
        exchange(options, &callers, &phones, &streams, &mut signalling)
    };
    let ended = signalling.hang_up(options);
    Ok(report.json(options.calls, ended))
}

enum Signalling {
    None,
    Ng(Ng),
    Sip(Box<Calls>),
}

impl Signalling {
    /// Answers what came on the SIP sockets, and no more: media is being sent.
    fn glance(&mut self) {
        if let Signalling::Sip(calls) = self {
            calls.read();
        }
    }

    fn serve_until(&mut self, until: Instant) {
        while Instant::now() < until {
            if let Signalling::Sip(calls) = self {
                calls.serve();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends every call; how many ended as they should.
    fn hang_up(&mut self, options: &Options) -> usize {
        match self {
            Signalling::None => options.calls,
            Signalling::Ng(engine) => engine.hang_up(options.calls),
            Signalling::Sip(calls) => calls.hang_up(),
        }
    }
}

struct Report {
    sent: u64,
    received: u64,
    late: u64,
    delays: Vec<u32>,
}

impl Default for Report {
    fn default() -> Report {
        Report { sent: 0, received: 0, late: 0, delays: vec![0; DELAY_MAX_US + 1] }
    }
}

impl Report {
    fn percentile(&self, share: f64) -> f64 {
        let wanted = (self.received as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (slot, &count) in self.delays.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted && seen > 0 {
                return slot as f64;
            }
        }
        0.0
    }

    fn json(&self, calls: usize, ended: usize) -> String {
        format!(
            r#"{{"calls":{calls},"ended":{ended},"sent":{},"received":{},"lost":{},"send_late":{},"delay_us_p50":{:.0},"delay_us_p99":{:.0},"delay_us_p999":{:.0}}}"#,
            self.sent,
            self.received,
            self.sent.saturating_sub(self.received),
            self.late,
            self.percentile(0.5),
            self.percentile(0.99),
            self.percentile(0.999),
        )
    }
}

/// Sends every stream's packets evenly spread over time and counts what arrives. Packet `g` of the whole run leaves at `g * gap`, on stream
/// `g % streams`; only packets of the window after the warm-up are counted.
fn exchange(
    options: &Options,
    callers: &[UdpSocket],
    phones: &[UdpSocket],
    streams: &Streams,
    signalling: &mut Signalling,
) -> Report {
    let mut report = Report::default();
    let total_streams = 2 * options.calls as u64;
    let per_second = total_streams * u64::from(options.pps);
    let at = |g: u64| Duration::from_nanos((u128::from(g) * 1_000_000_000 / u128::from(per_second)) as u64);
    let window =
        (options.warm * per_second as f64) as u64..((options.warm + options.seconds) * per_second as f64) as u64;
    let samples = 8_000 / options.pps;
    let mut packet = [0xD5u8; 12 + PAYLOAD];
    let mut buffer = [0u8; 2048];
    let began = Instant::now();
    let mut g = 0u64;
    let mut finish = None;
    loop {
        let now = began.elapsed();
        let mut burst = 0;
        while finish.is_none() && at(g) <= now && burst < 64 {
            if g == window.start {
                said("window");
            }
            if g == window.end {
                said("done");
                finish = Some(began.elapsed() + Duration::from_millis(300));
                break;
            }
            let stream = g % total_streams;
            let (call, caller) = ((stream / 2) as usize, stream.is_multiple_of(2));
            let turn = g / total_streams;
            let sent_at = began.elapsed();
            rtp(&mut packet, stream as u32, turn as u32, samples, g, sent_at);
            let (socket, to) = if caller {
                (&callers[call / CALLS_PER_SOCKET], streams.from_caller[call])
            } else {
                (&phones[call / CALLS_PER_SOCKET], streams.from_phone[call])
            };
            let ok = socket.send_to(&packet, to).is_ok();
            if window.contains(&g) {
                report.sent += u64::from(ok);
                report.late += u64::from(sent_at.saturating_sub(at(g)) > Duration::from_millis(5));
            }
            g += 1;
            burst += 1;
        }
        for socket in callers.iter().chain(phones) {
            while let Ok(length) = socket.recv(&mut buffer) {
                let Some((number, sent_at)) = ours(&buffer[..length]) else { continue };
                if window.contains(&number) {
                    let delay = began.elapsed().saturating_sub(sent_at).as_micros() as usize;
                    report.delays[delay.min(DELAY_MAX_US)] += 1;
                    report.received += 1;
                }
            }
        }
        signalling.glance();
        if finish.is_some_and(|end| began.elapsed() >= end) {
            return report;
        }
        std::thread::yield_now();
    }
}

fn rtp(packet: &mut [u8; 12 + PAYLOAD], ssrc: u32, turn: u32, samples: u32, number: u64, at: Duration) {
    packet[0] = 0x80;
    packet[1] = 8;
    packet[2..4].copy_from_slice(&(turn as u16).to_be_bytes());
    packet[4..8].copy_from_slice(&turn.wrapping_mul(samples).to_be_bytes());
    packet[8..12].copy_from_slice(&(0x5700_0000 | ssrc).to_be_bytes());
    packet[12..16].copy_from_slice(MAGIC);
    packet[16..24].copy_from_slice(&number.to_be_bytes());
    packet[24..32].copy_from_slice(&(at.as_nanos() as u64).to_be_bytes());
}

/// The packet's number and the time it was sent, if it is one of ours.
fn ours(packet: &[u8]) -> Option<(u64, Duration)> {
    let payload = packet.get(12..)?;
    if payload.get(..4)? != MAGIC {
        return None;
    }
    let word = |at: usize| payload.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    Some((word(4)?, Duration::from_nanos(word(12)?)))
}

// ---- SIP -------------------------------------------------------------------------------------------------------------

/// Every call of a run, both ends of each.
struct Calls {
    server: SocketAddr,
    numbers: Vec<String>,
    rate: f64,
    uac: UdpSocket,
    uas: UdpSocket,
    uac_port: u16,
    uas_port: u16,
    run: u32,
    caller_ports: Vec<u16>,
    phone_ports: Vec<u16>,
    callers: Vec<Caller>,
    phones: Vec<Phone>,
    by_call_id: HashMap<String, usize>,
    buffer: Vec<u8>,
    answer_after: Duration,
    errors: Vec<String>,
}

#[derive(Default)]
struct Caller {
    invited: Option<Instant>,
    sent: Option<Instant>,
    heard: bool,
    ringing: Option<Duration>,
    dialog: Option<Dialog>,
    bye: Option<Instant>,
    ended: bool,
    failed: bool,
}

/// What the caller needs for its later requests.
struct Dialog {
    target: String,
    to: String,
    routes: String,
    media: Option<SocketAddr>,
    acked: Option<Instant>,
}

struct Phone {
    media: Option<SocketAddr>,
    ok: String,
    peer: SocketAddr,
    answer_at: Instant,
    answered: Option<Instant>,
    acked: bool,
}

impl Calls {
    fn new(
        options: &Options,
        server: SocketAddr,
        caller_ports: Vec<u16>,
        phone_ports: Vec<u16>,
    ) -> Result<Calls, String> {
        let (uac, uas) = (loopback(options.uac)?, loopback(options.uas)?);
        let port = |s: &UdpSocket| s.local_addr().map(|a| a.port()).map_err(|e| e.to_string());
        let (uac_port, uas_port) = (port(&uac)?, port(&uas)?);
        let mut callers = Vec::new();
        callers.resize_with(options.calls, Caller::default);
        Ok(Calls {
            server,
            numbers: options.number.split(',').map(str::to_string).collect(),
            rate: options.rate,
            uac,
            uas,
            uac_port,
            uas_port,
            run: std::process::id(),
            caller_ports,
            phone_ports,
            callers,
            phones: Vec::new(),
            by_call_id: HashMap::new(),
            buffer: vec![0; 65_536],
            answer_after: Duration::ZERO,
            errors: Vec::new(),
        })
    }

    /// Brings every call up at the given pace.
    fn establish(&mut self) -> Result<(), String> {
        let total = self.callers.len();
        let began = Instant::now();
        let limit = Duration::from_secs_f64(total as f64 / self.rate) + PATIENCE;
        let mut next = 0;
        loop {
            while next < total && began.elapsed().as_secs_f64() * self.rate >= next as f64 {
                self.invite(next);
                next += 1;
            }
            self.serve();
            let up = self.callers.iter().filter(|c| c.dialog.is_some()).count();
            if up == total && self.phones.iter().all(|p| p.acked) {
                return Ok(());
            }
            if began.elapsed() > limit || self.callers.iter().any(|c| c.failed) {
                return Err(format!(
                    "{up} of {total} calls came up; {}",
                    self.errors.first().map_or("no answer", |e| e.as_str())
                ));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn streams(&self) -> Result<Streams, String> {
        let mut from_caller = Vec::new();
        for caller in &self.callers {
            from_caller.push(
                caller.dialog.as_ref().and_then(|d| d.media).ok_or("an answer came without an address for media")?,
            );
        }
        let mut from_phone = Vec::new();
        for phone in &self.phones {
            from_phone.push(phone.media.ok_or("an offer came without an address for media")?);
        }
        if from_phone.len() != from_caller.len() {
            return Err(format!("{} phones rang for {} calls", from_phone.len(), from_caller.len()));
        }
        Ok(Streams { from_caller, from_phone })
    }

    fn hang_up(&mut self) -> usize {
        let total = self.callers.len();
        let began = Instant::now();
        let limit = Duration::from_secs_f64(total as f64 / self.rate) + PATIENCE;
        let mut next = 0;
        while began.elapsed() < limit && self.callers.iter().any(|c| !c.ended) {
            while next < total && began.elapsed().as_secs_f64() * self.rate >= next as f64 {
                self.bye(next);
                next += 1;
            }
            self.serve();
            std::thread::sleep(Duration::from_micros(200));
        }
        self.callers.iter().filter(|c| c.ended).count()
    }

    fn invite(&mut self, call: usize) {
        let now = Instant::now();
        let body = sdp(self.caller_ports[call], "8 0 101");
        let text = format!(
            "INVITE sip:{number}@{server} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKi{run}x{call};rport\r\n\
             From: <sip:+79131234567@127.0.0.1:{port}>;tag=a{call}\r\nTo: <sip:{number}@{server}>\r\nCall-ID: {run}-{call}@127.0.0.1\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:+79131234567@127.0.0.1:{port}>\r\nMax-Forwards: 70\r\nUser-Agent: rtpgen\r\n\
             Content-Type: application/sdp\r\nContent-Length: {length}\r\n\r\n{body}",
            number = self.numbers[call % self.numbers.len()],
            server = self.server,
            port = self.uac_port,
            run = self.run,
            length = body.len(),
        );
        let caller = &mut self.callers[call];
        caller.invited.get_or_insert(now);
        caller.sent = Some(now);
        let _ = self.uac.send_to(text.as_bytes(), self.server);
    }

    fn in_dialog(&self, call: usize, method: &str, cseq: u32, branch: &str) -> Option<String> {
        let dialog = self.callers[call].dialog.as_ref()?;
        Some(format!(
            "{method} {target} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}{run}x{call};rport\r\n{routes}\
             From: <sip:+79131234567@127.0.0.1:{port}>;tag=a{call}\r\nTo: {to}\r\nCall-ID: {run}-{call}@127.0.0.1\r\n\
             CSeq: {cseq} {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
            target = dialog.target,
            port = self.uac_port,
            run = self.run,
            routes = dialog.routes,
            to = dialog.to,
        ))
    }

    fn bye(&mut self, call: usize) {
        if self.callers[call].ended {
            return;
        }
        if let Some(text) = self.in_dialog(call, "BYE", 2, "b") {
            self.callers[call].bye = Some(Instant::now());
            let _ = self.uac.send_to(text.as_bytes(), self.server);
        }
    }

    /// Reads, answers, and sends again what stayed unanswered.
    fn serve(&mut self) {
        self.read();
        let now = Instant::now();
        for phone in &mut self.phones {
            let due = match phone.answered {
                None => now >= phone.answer_at,
                Some(at) => !phone.acked && now - at > RESEND,
            };
            if due {
                phone.answered = Some(now);
                let _ = self.uas.send_to(phone.ok.as_bytes(), phone.peer);
            }
        }
        for call in 0..self.callers.len() {
            let caller = &self.callers[call];
            if !caller.heard && caller.sent.is_some_and(|at| now - at > RESEND) {
                self.invite(call);
            } else if !caller.ended && caller.bye.is_some_and(|at| now - at > RESEND) {
                self.bye(call);
            }
        }
    }

    /// Reads both SIP sockets empty and answers.
    fn read(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Ok((length, from)) = self.uas.recv_from(&mut buffer) {
            if let Ok(text) = std::str::from_utf8(&buffer[..length]) {
                self.at_phone(text, from);
            }
        }
        while let Ok((length, from)) = self.uac.recv_from(&mut buffer) {
            if let Ok(text) = std::str::from_utf8(&buffer[..length]) {
                self.at_caller(text, from);
            }
        }
        self.buffer = buffer;
    }

    fn at_caller(&mut self, text: &str, from: SocketAddr) {
        let Some(rest) = text.strip_prefix("SIP/2.0 ") else {
            let _ = self.uac.send_to(response(text, 200, "OK", "", "", "").as_bytes(), from);
            return;
        };
        let status: u16 = rest.get(..3).and_then(|s| s.parse().ok()).unwrap_or(0);
        let Some(call) =
            value(text, "Call-ID").and_then(|id| id.split(['-', '@']).nth(1)).and_then(|n| n.parse::<usize>().ok())
        else {
            return;
        };
        let Some(caller) = self.callers.get_mut(call) else { return };
        let is_invite = value(text, "CSeq").is_some_and(|v| v.ends_with("INVITE"));
        caller.heard = true;
        match (status, is_invite) {
            (180 | 183, true) => {
                if let (None, Some(at)) = (caller.ringing, caller.invited) {
                    caller.ringing = Some(at.elapsed());
                }
            }
            (200..=299, true) => {
                if caller.dialog.is_none() {
                    let contact = value(text, "Contact").unwrap_or("");
                    let target = contact.split(['<', '>']).nth(1).unwrap_or(contact).to_string();
                    let mut routes = String::new();
                    for route in values(text, "Record-Route").collect::<Vec<_>>().into_iter().rev() {
                        let _ = write!(routes, "Route: {route}\r\n");
                    }
                    caller.dialog = Some(Dialog {
                        target,
                        to: value(text, "To").unwrap_or("").to_string(),
                        routes,
                        media: media_address(text),
                        acked: None,
                    });
                }
                if let Some(ack) = self.in_dialog(call, "ACK", 1, "a") {
                    let _ = self.uac.send_to(ack.as_bytes(), self.server);
                    if let Some(dialog) = &mut self.callers[call].dialog {
                        dialog.acked.get_or_insert_with(Instant::now);
                    }
                }
            }
            (300.., true) => {
                caller.failed = true;
                self.errors.push(text.lines().next().unwrap_or("").to_string());
            }
            (200.., false) => caller.ended = true,
            _ => {}
        }
    }

    fn at_phone(&mut self, text: &str, from: SocketAddr) {
        let Some(id) = value(text, "Call-ID") else { return };
        match text.split(' ').next().unwrap_or("") {
            "INVITE" => {
                if self.by_call_id.contains_key(id) || self.phones.len() == self.phone_ports.len() {
                    return;
                }
                let call = self.phones.len();
                self.by_call_id.insert(id.to_string(), call);
                let contact = format!("Contact: <sip:100@127.0.0.1:{}>\r\n", self.uas_port);
                let tag = format!(";tag=b{call}");
                let _ = self.uas.send_to(response(text, 180, "Ringing", &tag, &contact, "").as_bytes(), from);
                let ok = response(text, 200, "OK", &tag, &contact, &sdp(self.phone_ports[call], "8 101"));
                let now = Instant::now();
                let answered = if self.answer_after.is_zero() {
                    let _ = self.uas.send_to(ok.as_bytes(), from);
                    Some(now)
                } else {
                    None
                };
                self.phones.push(Phone {
                    media: media_address(text),
                    ok,
                    peer: from,
                    answer_at: now + self.answer_after,
                    answered,
                    acked: false,
                });
            }
            "ACK" => {
                if let Some(phone) = self.by_call_id.get(id).and_then(|&i| self.phones.get_mut(i)) {
                    phone.acked = true;
                }
            }
            "SIP/2.0" => {}
            _ => {
                let _ = self.uas.send_to(response(text, 200, "OK", "", "", "").as_bytes(), from);
            }
        }
    }
}

fn sdp(port: u16, formats: &str) -> String {
    format!(
        "v=0\r\no=rtpgen 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP {formats}\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\na=ptime:20\r\na=sendrecv\r\n"
    )
}

/// A response to a request: Via, Record-Route, From, To, Call-ID and CSeq as they came.
fn response(request: &str, status: u16, phrase: &str, tag: &str, headers: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status} {phrase}\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in values(request, name) {
            let tag = if name == "To" && !value.contains(";tag=") { tag } else { "" };
            let _ = write!(text, "{name}: {value}{tag}\r\n");
        }
    }
    text += headers;
    if !body.is_empty() {
        text += "Content-Type: application/sdp\r\n";
    }
    let _ = write!(text, "Content-Length: {}\r\n\r\n{body}", body.len());
    text
}

fn values<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("\r\n").skip(1).take_while(|line| !line.is_empty()).filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn value<'a>(text: &'a str, name: &'a str) -> Option<&'a str> {
    values(text, name).next()
}

/// Address and port of the first m-line of an SDP body.
fn media_address(text: &str) -> Option<SocketAddr> {
    let mut address = None;
    let mut port = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("c=IN IP4 ") {
            address = rest.trim().parse().ok();
        } else if let Some(rest) = line.strip_prefix("m=audio ") {
            port = rest.split(' ').next().and_then(|p| p.parse().ok());
        }
    }
    Some(SocketAddr::new(address?, port?))
}

// ---- latency ---------------------------------------------------------------------------------------------------------

/// One call after the other at `--rate`: INVITE to 180, then an answer, ACK and BYE; prints the quantiles in microseconds.
fn latency(options: &Options) -> Result<String, String> {
    let mut server = options.server;
    if options.direct {
        server = Some(SocketAddr::from(([127, 0, 0, 1], options.uas)));
    }
    let ports = vec![9; options.calls];
    let mut calls = Calls::new(options, server.ok_or("--server is needed")?, ports.clone(), ports)?;
    calls.answer_after = Duration::from_millis(3);
    let gap = Duration::from_secs_f64(1.0 / options.rate);
    let began = Instant::now();
    let hold = gap.min(Duration::from_millis(10));
    for call in 0..options.calls {
        let due = gap * call as u32;
        while began.elapsed() < due {
            calls.spin(call.saturating_sub(4));
        }
        calls.invite(call);
        let sent = Instant::now();
        let mut hung_up = false;
        while sent.elapsed() < gap {
            calls.spin(call.saturating_sub(4));
            if !hung_up
                && calls.callers[call].dialog.as_ref().and_then(|d| d.acked).is_some_and(|at| at.elapsed() >= hold / 4)
            {
                calls.bye(call);
                hung_up = true;
            }
        }
    }
    calls.hang_up();
    let mut times: Vec<f64> = calls.callers.iter().filter_map(|c| c.ringing).map(|d| d.as_secs_f64() * 1e6).collect();
    times.sort_by(f64::total_cmp);
    if times.is_empty() {
        return Err(calls.errors.first().cloned().unwrap_or("nothing rang".into()));
    }
    let quantile = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    Ok(format!(
        r#"{{"calls":{},"rang":{},"ended":{},"ring_us_p50":{:.1},"ring_us_p99":{:.1},"ring_us_max":{:.1}}}"#,
        options.calls,
        times.len(),
        calls.callers.iter().filter(|c| c.ended).count(),
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
    ))
}

impl Calls {
    /// As `serve`, without looking at the calls before `first` and without sending again: spinning must not become slower with every call.
    fn spin(&mut self, first: usize) {
        self.read();
        let now = Instant::now();
        for phone in self.phones.iter_mut().skip(first) {
            if phone.answered.is_none() && now >= phone.answer_at {
                phone.answered = Some(now);
                let _ = self.uas.send_to(phone.ok.as_bytes(), phone.peer);
            }
        }
        std::thread::yield_now();
    }
}

// ---- rtpengine's control protocol ------------------------------------------------------------------------------------

/// The ng protocol: a cookie and a bencoded dictionary over UDP.
struct Ng {
    socket: UdpSocket,
    run: u32,
    cookie: u32,
}

impl Ng {
    fn new(engine: SocketAddr) -> Result<Ng, String> {
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        socket.connect(engine).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(2))).map_err(|e| e.to_string())?;
        Ok(Ng { socket, run: std::process::id(), cookie: 0 })
    }

    fn establish(&mut self, options: &Options, callers: &[u16], phones: &[u16]) -> Result<Streams, String> {
        let mut streams = Streams { from_caller: Vec::new(), from_phone: Vec::new() };
        for call in 0..options.calls {
            let (id, from, to) = (format!("{}-{call}", self.run), format!("a{call}"), format!("b{call}"));
            let mut offer = vec![("call-id", id.as_str()), ("command", "offer"), ("from-tag", from.as_str())];
            if options.record {
                offer.push(("record call", "on"));
            }
            let body = sdp(callers[call], "8 0 101");
            offer.push(("sdp", &body));
            let to_phone = self.ask(&offer)?;
            streams.from_phone.push(media_address(&to_phone).ok_or(format!("rtpengine: {to_phone}"))?);
            let body = sdp(phones[call], "8 101");
            let answer =
                [("call-id", id.as_str()), ("command", "answer"), ("from-tag", &from), ("sdp", &body), ("to-tag", &to)];
            let to_caller = self.ask(&answer)?;
            streams.from_caller.push(media_address(&to_caller).ok_or(format!("rtpengine: {to_caller}"))?);
        }
        Ok(streams)
    }

    fn hang_up(&mut self, calls: usize) -> usize {
        (0..calls)
            .filter(|call| {
                let (id, from) = (format!("{}-{call}", self.run), format!("a{call}"));
                self.ask(&[("call-id", &id), ("command", "delete"), ("from-tag", &from)])
                    .is_ok_and(|a| a.contains("6:result2:ok"))
            })
            .count()
    }

    /// Sends a dictionary whose keys are already in order; the raw answer.
    fn ask(&mut self, dictionary: &[(&str, &str)]) -> Result<String, String> {
        self.cookie += 1;
        let mut text = format!("{}_{} d", self.run, self.cookie);
        for (key, value) in dictionary {
            let _ = write!(text, "{}:{key}{}:{value}", key.len(), value.len());
        }
        text.push('e');
        self.socket.send(text.as_bytes()).map_err(|e| format!("rtpengine: {e}"))?;
        let mut buffer = [0; 8192];
        let length = self.socket.recv(&mut buffer).map_err(|e| format!("rtpengine: {e}"))?;
        String::from_utf8(buffer[..length].to_vec()).map_err(|e| e.to_string())
    }
}
