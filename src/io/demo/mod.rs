//! `strowger demo`: the real server with the demo company's configuration on loopback, and some office days played to it by
//! simulated carriers, customers and telephones over real sockets. Each scene has its own moment: the server's wall clock is set. Every figure that is shown comes from the server's record and
//! files; what the script did only decides whether they are right.

mod party;
mod scenes;
mod tell;
mod voice;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::clock::Clock;
use super::config::Config;
use super::import::{self, rejects::Rejects};
use super::record::wav;
use super::store::Filter;
use super::{Running, start};
use crate::b2bua::Ask;
use crate::base::{Rng, Wall};
use crate::call::record::{CallRecord, RecordingEntry};
use crate::directory::Directory;
use crate::media::tone;
use crate::sip::transport::Transport;
use party::{Missed, Party};
use scenes::{Cast, PLAY, Scene, tones};
use tell::Teller;

/// The demo company.
const OFFICE: &str = include_str!("../../../fixtures/office.toml");
/// Its production calendar, where the configuration looks for it.
const CALENDAR: (&str, &str) = ("calendars/ru-2026.json", include_str!("../../../fixtures/calendars/ru-2026.json"));
/// Its customers; they are imported.
const CONTACTS: &str = include_str!("../../../fixtures/contacts.csv");
/// How long a customer's own manager rings in the configuration, and in the play, which has no time for that.
const MANAGER_RING: [&str; 2] = ["ring = \"15s\"", "ring = \"3s\""];
/// The same.
const MANAGER_RINGS: Duration = Duration::from_secs(3);
/// How long the server may take to write a record with its recordings.
const WRITTEN: Duration = Duration::from_secs(7);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);
/// How far a recording's length may be from the talk and hold that it holds.
const NEAR: Duration = Duration::from_millis(400);

/// How the demo is to run.
#[derive(Clone, Copy, Default, Debug)]
pub struct Options {
    /// End after the last scene.
    pub once: bool,
    /// One JSON object a scene instead of words.
    pub json: bool,
    /// Show each call's messages.
    pub ladder: bool,
    /// Something is broken on purpose, to see that the demo notices.
    pub sabotage: Option<Sabotage>,
}

/// What can be broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// A telephone speaks another tone than it should: as if two calls were crossed.
    Tone,
}

/// Something that was to come true.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Check {
    /// What, in words.
    pub what: String,
    /// Whether it did.
    pub ok: bool,
}

impl Check {
    /// It is so, or not.
    pub fn is(what: impl Into<String>, ok: bool) -> Check {
        Check { what: what.into(), ok }
    }

    /// A figure of the record is what the script did, or near it.
    pub fn near(what: &str, ms: u64, wanted: Duration, near: Duration) -> Check {
        let off = Duration::from_millis(ms).abs_diff(wanted);
        let what =
            if off <= near { what.to_owned() } else { format!("{what} ({ms} ms, played {} ms)", wanted.as_millis()) };
        Check { what, ok: off <= near }
    }
}

/// What became of a scene.
pub struct Played {
    /// When it was, by the server's shifted clock.
    pub at: Wall,
    /// What was checked: first what both ends saw and heard, then the record's figures.
    pub checks: Vec<Check>,
    /// How many of them both ends saw and heard.
    pub at_the_ends: usize,
    /// What the server wrote of it.
    pub record: Option<CallRecord>,
    /// Its files.
    pub recordings: Vec<Heard>,
    /// Its messages, where they were asked for.
    pub ladder: Option<Value>,
}

impl Played {
    /// Whether everything came true.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|c| c.ok)
    }
}

/// A recording, as it was found on the disk.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Heard {
    /// The file.
    pub path: PathBuf,
    /// Its length in seconds.
    pub seconds: f64,
    /// The tone in its left channel, in Hz.
    pub left: Option<u32>,
    /// The tone in its right channel, in Hz.
    pub right: Option<u32>,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The server does not start.
    #[error(transparent)]
    Start(#[from] super::StartError),
    /// The demo's configuration is refused.
    #[error("the demo's configuration is refused:\n{0}")]
    Config(String),
    /// A file or socket of the demo.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The customers cannot be imported.
    #[error("the demo's contacts: {0}")]
    Import(#[from] import::ImportError),
    /// Nor put in force.
    #[error("the demo's contacts: {0}")]
    Store(#[from] super::store::StoreError),
    /// The cast is not ready.
    #[error("{0}")]
    Cast(#[from] Missed),
}

/// Plays it; true: every call did what it says. Results go to `out`, talk to standard error.
pub fn run(options: Options, out: &mut dyn Write, colour: bool) -> Result<bool, DemoError> {
    let mut rng = Rng::new(super::seed()?);
    // One of its own for each play: what an earlier one left is not to be found again.
    let dir = std::env::temp_dir().join(format!("strowger-demo-{:08x}", rng.bits32()));
    std::fs::create_dir_all(&dir)?;
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut carriers = Vec::new();
    for name in ["carrier-a", "carrier-a", "carrier-b"] {
        carriers.push(Party::new(name, None, nowhere, &mut rng)?);
    }
    let config = configuration(&dir, &carriers)?;
    let (socket, path) = (config.socket(), config.path.clone());
    let (directory, imported) = (config.directory.clone(), config.files.imported.clone());
    let clock = Clock::starting_at(moment(&directory, PLAY[0].at));
    let running = start(config, clock.clone())?;
    let contacts = contacts(&running, &directory, &dir, &imported)?;
    let teller = Teller { directory: &directory, config: &path, dir: &dir, colour, json: options.json };
    teller.opening(&running, contacts, &socket);

    let mut cast = cast(&running, &directory, carriers, options.sabotage, &mut rng)?;
    let mut cursor = 0;
    let mut all_well = true;
    let mut day = None;
    for scene in &PLAY {
        clock.set(moment(&directory, scene.at));
        cast.all().into_iter().for_each(Party::forget);
        let played = play(scene, &mut cast, &running, &mut cursor, options.ladder);
        all_well &= played.ok();
        let today = scene.at.split('T').next();
        if day != today {
            teller.day(out, &played)?;
            day = today;
        }
        teller.scene(out, scene, &played)?;
        out.flush()?;
    }
    teller.ending(all_well, PLAY.len(), options.once);
    if !options.once {
        running.until_stopped();
    }
    drop(cast);
    running.stop();
    Ok(all_well)
}

/// The demo company as it stands but for its ports, which are free here, and the patience of a manager's telephone.
fn configuration(dir: &Path, carriers: &[Party]) -> Result<Config, DemoError> {
    let mut text = OFFICE.replace("\"127.0.0.1:5060\"", &format!("\"127.0.0.1:{}\"", free_port()?));
    for (port, carrier) in ["5090", "5091", "5092"].iter().zip(carriers) {
        text = text.replace(&format!("sip:127.0.0.1:{port}"), &format!("sip:{}", carrier.address));
    }
    let [whole, short] = MANAGER_RING;
    text = text.replace(whole, short);
    let (path, calendar) = (dir.join("office.toml"), dir.join(CALENDAR.0));
    std::fs::create_dir_all(calendar.parent().unwrap_or(dir))?;
    std::fs::write(&calendar, CALENDAR.1)?;
    std::fs::write(&path, &text)?;
    Config::parse(&path, &text).map_err(|report| DemoError::Config(report.render(false)))
}

/// The company's customers, imported from a file like `strowger import contacts` does while the server runs. How many they are.
fn contacts(running: &Running, directory: &Directory, dir: &Path, database: &Path) -> Result<u64, DemoError> {
    let file = dir.join("contacts.csv");
    std::fs::write(&file, CONTACTS)?;
    let mut rejects = Rejects::to(&dir.join("contacts.rejects.csv"));
    let outcome = import::What::Contacts.import(&mut import::Job {
        files: &[file],
        dry_run: false,
        shown: 0,
        directory,
        database,
        now: running.handle().clock().wall(),
        rejects: &mut rejects,
        progress: &(),
    })?;
    rejects.close()?;
    running.handle().import()?;
    Ok(outcome.new.count)
}

/// A port that nobody has, for UDP and TCP. Another program may take it before the server does; that is then said.
fn free_port() -> io::Result<u16> {
    for _ in 0..16 {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free for UDP and TCP"))
}

/// Carriers that are seen to live, telephones that are registered.
fn cast(
    running: &Running,
    directory: &Directory,
    mut carriers: Vec<Party>,
    sabotage: Option<Sabotage>,
    rng: &mut Rng,
) -> Result<Cast, DemoError> {
    let server = running.addresses().iter().find(|a| a.transport == Transport::Udp).map(|a| a.bound);
    let server = server.ok_or_else(|| Missed("the demo's configuration has no UDP listener".into()))?;
    for carrier in &mut carriers {
        carrier.set_server(server);
    }
    let domain = directory.node.domains.first().map_or_else(|| server.ip().to_string(), |d| d.to_string());
    let mut phone = |number: &str| -> Result<Party, DemoError> {
        let extension = directory.extension(number).ok_or_else(|| Missed(format!("no extension {number}")))?;
        let password = extension.password.0.to_string();
        let mut phone = Party::new(number, Some(password.clone()), server, rng)?;
        match phone.register(&domain, &password, 3600)?.status() {
            200 => Ok(phone),
            status => Err(Missed(format!("{number} cannot register: {status}")).into()),
        }
    };
    let (anna, boris, shop, guard) = (phone("121")?, phone("122")?, phone("123")?, phone("130")?);
    let (vera, gleb) = (phone("221")?, phone("321")?);
    let speakers = [phone("601")?, phone("602")?];
    let stranger = Party::new("124", None, server, rng)?;
    let carrier_password = directory.trunk("carrier-a").and_then(|t| t.password.as_ref());
    let carrier_password = carrier_password.map(|p| p.0.to_string()).unwrap_or_default();
    for _ in 0..100 {
        if carriers.iter().all(Party::was_asked) {
            break;
        }
        scenes::pause(LOOK);
    }
    let (Some(carrier_b), Some(carrier_a_reserve), Some(carrier_a)) = (carriers.pop(), carriers.pop(), carriers.pop())
    else {
        return Err(Missed("three carriers were made".into()).into());
    };
    Ok(Cast {
        carrier_a,
        _carrier_a_reserve: carrier_a_reserve,
        carrier_b,
        anna,
        boris,
        shop,
        guard,
        vera,
        gleb,
        speakers,
        stranger,
        domain,
        host: server.to_string(),
        carrier_password,
        sabotage,
    })
}

/// Plays a scene and looks at what the server made of it.
fn play(scene: &Scene, cast: &mut Cast, running: &Running, cursor: &mut i64, ladder: bool) -> Played {
    let at = running.handle().clock().wall();
    let mut checks = match (scene.play)(cast) {
        Ok(checks) => checks,
        Err(missed) => vec![Check::is(missed.to_string(), false)],
    };
    let at_the_ends = checks.len();
    let records = records(running, *cursor, scene.record.is_some());
    if let Some((last, _)) = records.last() {
        *cursor = *last;
    }
    let wanted = usize::from(scene.record.is_some());
    if records.len() != wanted {
        let what = format!("{} call records instead of {wanted}", records.len());
        checks.push(Check::is(what, false));
    }
    let record = records.into_iter().next().map(|(_, record)| record);
    let mut recordings = Vec::new();
    if let (Some(record), Some(check)) = (&record, scene.record) {
        checks.extend(check(record));
        recordings = listen(&record.recordings, running.handle().recordings());
        if let Some((left, right)) = scene.recorded {
            checks.extend(recorded(record, &recordings, left, right));
        }
    }
    let ladder = record.as_ref().filter(|_| ladder).map(|r| running.ask(Ask::Ladder(r.id)));
    Played { at, checks, at_the_ends, record, recordings, ladder }
}

/// The records written since `cursor`, complete with their recordings.
fn records(running: &Running, cursor: i64, wanted: bool) -> Vec<(i64, CallRecord)> {
    let clock = running.handle().clock();
    let until = clock.mono() + WRITTEN;
    loop {
        running.handle().flush();
        let read = || -> Result<Vec<(i64, CallRecord)>, super::store::StoreError> {
            running.handle().reader()?.records(&Filter { after: cursor, ..Filter::default() })
        };
        let found = read().unwrap_or_default();
        let whole = |r: &CallRecord| r.recordings.iter().all(|f| f.until.is_some());
        let there = !found.is_empty() && found.iter().all(|(_, r)| whole(r));
        if there || !wanted || clock.mono() >= until {
            return found;
        }
        scenes::pause(LOOK);
    }
}

/// What a record's recordings hold.
fn listen(entries: &[RecordingEntry], dir: &Path) -> Vec<Heard> {
    let paths = entries.iter().filter_map(|e| e.id.parse().ok()).flat_map(|id| wav::parts(dir, id));
    paths.filter_map(|path| hear(&path).ok()).collect()
}

/// Reads a stereo file and tells the tones of its two channels.
fn hear(path: &Path) -> Result<Heard, hound::Error> {
    let mut reader = hound::WavReader::open(path)?;
    let (rate, frames) = (reader.spec().sample_rate, reader.duration());
    let samples: Vec<i16> = reader.samples::<i16>().collect::<Result<_, _>>()?;
    // What each said over the whole call, silence of hold left out.
    let side = |offset: usize| {
        let sound: Vec<i16> = samples.iter().skip(offset).step_by(2).copied().filter(|s| *s != 0).collect();
        tone::heard(loudest(&sound, rate), rate, &tones::ALL)
    };
    Ok(Heard {
        path: path.to_owned(),
        seconds: f64::from(frames) / f64::from(rate.max(1)),
        left: side(0),
        right: side(1),
    })
}

/// The middle half second.
fn loudest(sound: &[i16], rate: u32) -> &[i16] {
    let half = (rate / 4) as usize;
    let middle = sound.len() / 2;
    &sound[middle.saturating_sub(half)..(middle + half).min(sound.len())]
}

fn recorded(record: &CallRecord, recordings: &[Heard], left: u32, right: u32) -> Vec<Check> {
    let [file] = recordings else {
        return vec![Check::is(format!("{} recordings instead of 1", recordings.len()), false)];
    };
    let length = Duration::from_millis(record.talk_ms + record.hold_ms);
    vec![
        Check::near("the recording is as long as the call", (file.seconds * 1000.0) as u64, length, NEAR),
        Check::is("left is the caller", file.left == Some(left)),
        Check::is("right is the one called", file.right == Some(right)),
        Check::is("it is complete", record.recordings.iter().all(|r| r.complete)),
    ]
}

/// A local date and time of the play in the server's zone.
fn moment(directory: &Directory, at: &str) -> Wall {
    let zone = tell::zone(directory);
    let moment = at.parse::<jiff::civil::DateTime>().and_then(|t| t.to_zoned(zone));
    Wall::from_micros(moment.expect("dates and times are constants").timestamp().as_microsecond())
}
