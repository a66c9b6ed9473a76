//! Scenario files that read like a SIP ladder. What the language has:
//!
//! ```text
//! ladder "an inbound call to the queue, 122 answers, the caller hangs up"
//! with queue.sales.wait 30s            the office is otherwise as office.rs has it
//! phones 121 122                       registered over UDP beforehand; `phones 123 by tcp`; `phones 122b of 122`
//! unregistered 130                     there, but not registered
//! stranger eve                         somebody from outside
//! carrier carrier-a by tcp             carriers speak UDP otherwise
//! given 121 answers after 3s           habits, see `given`
//! fair "why"                           only over a perfect network
//!
//! carrier-a -> INVITE +73433000001 from +79131234567
//! 121 <- INVITE      122 <- INVITE     two columns: at least two blanks between them
//! 121 -> 180
//! carrier-a <- 180
//! 122 -> 200
//! 121 <- CANCEL "Call completed elsewhere"      the message holds that text (' stands for a double quote)
//! carrier-a <- 200
//! talk carrier-a 122 2s                both hear each other and nobody else
//! 121 hears 601 and 602 2s             it hears both at once, and nobody else (`given 121 hears many`)
//! carrier-a hears sound closed.wav     what the server plays (`never heard sound` for the contrary)
//! 122 -> KEY 1                         a key by RFC 4733; INFO 1, or SOUND 1 for its tones
//! carrier-a -> BYE
//! 122 <- BYE
//! page 700 closed.wav                  the operator has a file played over a page
//! kill the server                      and start it again: it has what the store kept, and nothing else
//! record outcome=answered answered_by=extension:122 talk_ms=2000
//! at rest                              nothing is left in the core, everything was answered and acknowledged
//! ```
//!
//! `#` begins a comment. ACK, 100, 200 to CANCEL and BYE, 487, challenges and their answers need not be written. Over a
//! perfect network the lines happen in this order, and a request or final answer that no line names is a failure. Over bad
//! networks what is only provisional may be missing, times are not looked at, and the rest must come out the same.

use std::fmt;
use std::path::Path;

use strowger::b2bua::{Ask, CommandId, Event};
use strowger::call::record::CallRecord;

use crate::net::Weather;
use crate::office;
use crate::phone::text::{First, Msg, uri_of};
use crate::phone::voice::Tone;
use crate::phone::{Act, Call, Habit, Invite, Offer, Respond, Seen, Stage, Wire};
use crate::world::{Health, Subject, World};
use crate::{MS, SEC, Time};

/// A scenario.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// Its file's name.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// Why it makes sense over a perfect network only.
    pub fair: Option<String>,
    with: Vec<(String, String)>,
    /// Carriers that speak TCP.
    by_tcp: Vec<String>,
    phones: Vec<Declared>,
    givens: Vec<(String, Given)>,
    steps: Vec<(usize, String, Step)>,
}

/// Where and why a ladder failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Line of the file; 0: at the end.
    pub line: usize,
    /// The line.
    pub text: String,
    /// Why.
    pub why: String,
    /// What had happened, as a ladder.
    pub ladder: String,
    /// Every message in full.
    pub messages: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "line {}: {}\n  {}", self.line, self.text, self.why)?;
        f.write_str(&self.ladder)
    }
}

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    extension: String,
    wire: Wire,
    registered: bool,
    stranger: bool,
}

#[derive(Clone, Debug)]
enum Given {
    OnInvite(Time, Act),
    OnAnswer(Time, Act),
    AsksPassword,
    AsksOtherPassword,
    DeafToCancel,
    NoAck,
    NoTimer,
    NoUpdate,
    MinSe(u32),
    MinSeLater(u32),
    MinExpires(u64),
    DeafToOptions,
    Refuses(String, u16),
    Formats(Vec<(u8, String)>),
    Health(Health),
    Forgets,
    Careless,
    HearsMany,
    Calls(String),
}

#[derive(Clone, Debug)]
enum Step {
    Do { who: String, call: Option<usize>, act: Act },
    Forge { who: String, method: String, victim: String, tag: Tag },
    Expect { who: String, call: Option<usize>, pattern: Pattern },
    Nothing { who: String, time: Time },
    Wait(Time),
    Talk { a: String, b: String, time: Time },
    OneWay { from: String, to: String, time: Time },
    Both { of: [String; 2], to: String, time: Time },
    Silent { who: Vec<String>, time: Time },
    Keys { who: String, keys: String },
    Sound { who: String, name: String, heard: bool },
    MayHave { who: String, pattern: Pattern },
    AtMost { who: String, times: usize, method: String },
    Record(Vec<(String, String)>),
    NoRecord,
    Registered(String, bool),
    Health(String, Health),
    Restart(String),
    Disconnect(String, bool),
    Login { who: String, reason: String },
    NotTaken { who: String, reason: String },
    Reload(Vec<(String, String)>),
    Spray { who: String, time: Time },
    Drain,
    Page { number: String, sound: String },
    Kill,
    Agent { extension: String, do_not_disturb: Option<bool>, paused: Option<bool> },
    Rest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tag {
    Right,
    Wrong,
}

#[derive(Clone, Debug)]
struct Pattern {
    what: What,
    of: Option<String>,
    holds: Vec<String>,
    lacks: Vec<String>,
    within: Option<Time>,
    not_before: Option<Time>,
}

#[derive(Clone, PartialEq, Debug)]
enum What {
    Request(String),
    Response(u16),
}

impl Ladder {
    /// Every ladder of a folder, by name.
    pub fn all(folder: &Path) -> Vec<Result<Ladder, String>> {
        #[expect(clippy::disallowed_methods, reason = "tests read their own scenarios")]
        let entries = std::fs::read_dir(folder);
        let mut files: Vec<_> = entries.into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "ladder"));
        files.sort();
        let read = |file: &std::path::PathBuf| {
            #[expect(clippy::disallowed_methods, reason = "tests read their own scenarios")]
            let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            Ladder::parse(&name, &text).map_err(|e| format!("{}: {e}", file.display()))
        };
        files.iter().map(read).collect()
    }

    /// Reads one.
    pub fn parse(name: &str, text: &str) -> Result<Ladder, String> {
        let mut ladder = Ladder {
            name: name.to_owned(),
            title: String::new(),
            fair: None,
            with: Vec::new(),
            by_tcp: Vec::new(),
            phones: Vec::new(),
            givens: Vec::new(),
            steps: Vec::new(),
        };
        for (i, line) in text.lines().enumerate() {
            for column in columns(line) {
                ladder.column(i + 1, &column).map_err(|why| format!("line {}: {column}: {why}", i + 1))?;
            }
        }
        if ladder.title.is_empty() {
            return Err("no title".into());
        }
        Ok(ladder)
    }

    fn column(&mut self, line: usize, text: &str) -> Result<(), String> {
        let words = words(text);
        let w: Vec<&str> = words.iter().map(String::as_str).collect();
        match w[..] {
            ["ladder", title] => self.title = title.to_owned(),
            ["fair", why] => self.fair = Some(why.to_owned()),
            ["with", key, value] => self.with.push((key.to_owned(), value.to_owned())),
            ["carrier", name, "by", "tcp"] => self.by_tcp.push(name.to_owned()),
            ["phones" | "unregistered", ..] => self.declare(&w)?,
            ["stranger", name] => self.phones.push(Declared {
                name: name.to_owned(),
                extension: String::new(),
                wire: Wire::Udp,
                registered: false,
                stranger: true,
            }),
            ["given", who, ..] => self.givens.push((who.to_owned(), given(&w[2..])?)),
            _ => self.steps.push((line, text.to_owned(), step(&w)?)),
        }
        Ok(())
    }

    fn declare(&mut self, w: &[&str]) -> Result<(), String> {
        let registered = w[0] == "phones";
        let mut wire = Wire::Udp;
        let mut names = Vec::new();
        let mut rest = w[1..].iter();
        while let Some(word) = rest.next() {
            match *word {
                "by" => wire = if rest.next() == Some(&"tcp") { Wire::Tcp } else { return Err("by what?".into()) },
                "of" => {
                    let of = rest.next().ok_or("of whom?")?;
                    names.last_mut().ok_or("who?").map(|n: &mut (String, String)| n.1 = (*of).to_owned())?;
                }
                name => names.push((name.to_owned(), name.to_owned())),
            }
        }
        for (name, extension) in names {
            self.phones.push(Declared { name, extension, wire, registered, stranger: false });
        }
        Ok(())
    }

    /// Plays it.
    pub fn run(
        &self,
        weather: Weather,
        seed: u64,
        core: impl Fn(strowger::directory::Directory, u64) -> Box<dyn Subject>,
    ) -> Result<(), Box<Failure>> {
        let early = |why: String| {
            Box::new(Failure { line: 0, text: String::new(), why, ladder: String::new(), messages: String::new() })
        };
        let directory = office::directory(&self.with).map_err(early)?;
        let recorded = directory.recording != strowger::directory::Recording::None;
        let direct = directory.media.relay == strowger::directory::Relay::Never;
        let mut world = World::new(core(directory, seed), Weather::FAIR, WORKERS, seed);
        world.direct = direct;
        world.records_come_again = recorded;
        for (name, address, trunk) in office::CARRIERS {
            let wire = if self.by_tcp.iter().any(|c| c == name) { Wire::Tcp } else { Wire::Udp };
            world.add_carrier(name, address, trunk, wire, self.habit(name));
        }
        for phone in &self.phones {
            match phone.stranger {
                true => world.add_stranger(&phone.name),
                false => world.add_phone(&phone.name, &phone.extension, phone.wire, self.habit(&phone.name)),
            };
        }
        for (who, given) in &self.givens {
            let Some(node) = world.node(who) else { return Err(early(format!("who is {who}?"))) };
            if let Given::Health(health) = given {
                world.nodes[node].health = *health;
            }
        }
        // Beforehand the network is perfect.
        for phone in self.phones.iter().filter(|p| p.registered) {
            let node = world.node(&phone.name).expect("just added");
            let register = Act::Register { expires: 3600, password: None, all: false };
            world.act(node, None, &register).expect("registering is always possible");
        }
        world.play(world.now + 3 * SEC);
        for phone in self.phones.iter().filter(|p| p.registered) {
            let node = world.node(&phone.name).expect("just added");
            if world.nodes[node].phone.registered.is_none() && world.nodes[node].health == Health::Alive {
                return Err(Box::new(failure(&world, 0, "", format!("{} did not get registered", phone.name))));
            }
        }
        for node in &mut world.nodes {
            node.phone.inbox.clear();
        }
        world.set_weather(weather);
        let mut play = Play {
            world,
            fair: weather == Weather::FAIR,
            done: 0,
            seen_records: 0,
            rested: false,
            core: &core,
            with: self.with.clone(),
            seed,
        };
        for (line, text, step) in &self.steps {
            if let Err(why) = play.step(step) {
                return Err(Box::new(failure(&play.world, *line, text, why)));
            }
            if let Some(fault) = play.world.oracle.faults.first() {
                let why = format!("oracle: {fault}");
                return Err(Box::new(failure(&play.world, *line, text, why)));
            }
        }
        play.end().map_err(|why| Box::new(failure(&play.world, 0, "(at the end)", why)))
    }

    fn habit(&self, name: &str) -> Habit {
        let mut habit = Habit::default();
        for (_, given) in self.givens.iter().filter(|g| g.0 == name) {
            match given.clone() {
                Given::OnInvite(after, act) => habit.on_invite.push((after, act)),
                Given::OnAnswer(after, act) => habit.on_answer.push((after, act)),
                Given::AsksPassword => habit.challenge = Some(("office".into(), "carrier-secret".into())),
                Given::AsksOtherPassword => habit.challenge = Some(("office".into(), "something else".into())),
                Given::DeafToCancel => habit.deaf_to_cancel = true,
                Given::NoAck => habit.no_ack = true,
                Given::NoTimer => habit.timer = false,
                Given::NoUpdate => habit.update = false,
                Given::MinSe(seconds) => habit.min_se = seconds,
                Given::MinSeLater(seconds) => habit.min_se_later = seconds,
                Given::MinExpires(seconds) => habit.min_expires = seconds,
                Given::DeafToOptions => habit.deaf_to_options = true,
                Given::Refuses(method, code) => habit.refuse.push((method, code)),
                Given::Formats(formats) => habit.formats = formats,
                Given::Careless => habit.careless = true,
                Given::HearsMany => habit.hears_many = true,
                Given::Calls(itself) => habit.user_agent = itself,
                Given::Forgets => habit.keeps_registered = false,
                Given::Health(_) => {}
            }
        }
        habit
    }
}

/// Media workers of the world's core.
pub const WORKERS: usize = 2;

fn failure(world: &World, line: usize, text: &str, why: String) -> Failure {
    let mut why = why;
    for fault in &world.oracle.faults {
        if !why.contains(fault.as_str()) {
            why.push_str("\n  oracle: ");
            why.push_str(fault);
        }
    }
    for record in &world.oracle.records {
        why.push_str(&format!("\n  record: {}", serde_json::to_string(record).unwrap_or_default()));
    }
    let (ladder, messages) = (world.ladder(), world.messages());
    Failure { line, text: text.to_owned(), why, ladder, messages }
}

/// A ladder in progress.
struct Play<'a> {
    world: World,
    fair: bool,
    done: usize,
    seen_records: usize,
    rested: bool,
    core: &'a dyn Fn(strowger::directory::Directory, u64) -> Box<dyn Subject>,
    /// The configuration in force, as changes to the office.
    with: Vec<(String, String)>,
    /// The core's.
    seed: u64,
}

impl Play<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.done += 1;
        let fair = self.fair;
        match step {
            Step::Do { who, call, act } => {
                let node = self.node(who)?;
                let patience = if fair { 2 * SEC } else { 40 * SEC };
                let mut last = String::new();
                let until = self.world.now + patience;
                let did = self.world.play_until(until, |w| match w.act(node, *call, act) {
                    Ok(()) => true,
                    Err(why) => {
                        last = why.0;
                        false
                    }
                });
                did.then_some(()).ok_or_else(|| format!("{who} could not: {last}"))
            }
            Step::Forge { who, method, victim, tag } => {
                let (node, victim) = (self.node(who)?, self.node(victim)?);
                let msg = forged(&self.world, method, victim, *tag).ok_or("nothing to forge from")?;
                let _ = self.world.act(node, None, &Act::Raw(Box::new(msg)));
                Ok(())
            }
            Step::Expect { who, call, pattern } => self.expect(who, *call, pattern),
            Step::Nothing { who, time } => {
                let node = self.node(who)?;
                let until = self.world.now + time;
                self.world.play(until);
                match self.world.take(node, is_news) {
                    Some(seen) if fair => Err(format!("{who} got {}", crate::world::describe(&seen.msg))),
                    _ => Ok(()),
                }
            }
            Step::Wait(time) => {
                let until = self.world.now + time;
                self.world.play(until);
                Ok(())
            }
            Step::Talk { a, b, time } => {
                let (na, nb) = (self.node(a)?, self.node(b)?);
                self.both_up(na, nb)?;
                if !fair {
                    // Until the last answer or ACK has got through.
                    let (since, patience) = (self.world.now, self.world.now + 40 * SEC);
                    let hear = |w: &World, n: usize| {
                        w.nodes[n].phone.calls.iter().any(|c| !c.hears_since(since + 1).is_empty())
                    };
                    self.world.play_until(patience, |w| hear(w, na) && hear(w, nb));
                }
                let since = self.world.now;
                self.world.play(since + time);
                self.hears(na, nb, since)?;
                self.hears(nb, na, since)
            }
            Step::OneWay { from, to, time } => {
                let (from, to) = (self.node(from)?, self.node(to)?);
                if !fair {
                    let (since, patience) = (self.world.now, self.world.now + 40 * SEC);
                    let hears =
                        |w: &mut World| w.nodes[to].phone.calls.iter().any(|c| !c.hears_since(since + 1).is_empty());
                    self.world.play_until(patience, hears);
                }
                let since = self.world.now;
                self.world.play(since + time);
                self.hears(to, from, since)
            }
            Step::Both { of: [one, two], to, time } => {
                let (to, one, two) = (self.node(to)?, self.node(one)?, self.node(two)?);
                let tones = |w: &World, n: usize| -> Vec<Tone> {
                    w.nodes[n].phone.calls.iter().map(|c| c.voice.tone).collect()
                };
                let (ones, twos) = (tones(&self.world, one), tones(&self.world, two));
                let mixed = |call: &Call| -> Vec<Tone> {
                    ones.iter().flat_map(|a| twos.iter().map(|b| a.with(*b, call.voice.payload))).collect()
                };
                let hears = |w: &World, since: Time| {
                    let calls = &w.nodes[to].phone.calls;
                    calls.iter().any(|c| c.hears_since(since).iter().any(|tone| mixed(c).contains(tone)))
                };
                if !fair {
                    let (since, patience) = (self.world.now, self.world.now + 40 * SEC);
                    self.world.play_until(patience, |w| hears(w, since + 1));
                }
                let since = self.world.now + if fair { 200 * MS } else { 0 };
                self.world.play(since + time);
                if !hears(&self.world, since) {
                    return Err("it does not hear both".into());
                }
                for call in &self.world.nodes[to].phone.calls {
                    let known = [ones.clone(), twos.clone(), mixed(call)].concat();
                    if let Some(other) = call.hears_since(since).iter().find(|tone| !known.contains(tone)) {
                        return Err(format!("it hears {other:x?} besides"));
                    }
                }
                Ok(())
            }
            Step::Silent { who, time } => {
                // What is under way may still arrive.
                let since = self.world.now + if fair { 100 * MS } else { 5 * SEC };
                self.world.play(since + time);
                for name in who {
                    let node = self.node(name)?;
                    let calls = &self.world.nodes[node].phone.calls;
                    if calls.iter().any(|c| !c.hears_since(since + 1).is_empty()) {
                        return Err(format!("{name} hears something"));
                    }
                }
                Ok(())
            }
            Step::Keys { who, keys } => {
                let node = self.node(who)?;
                let until = self.world.now + SEC;
                self.world.play(until);
                let heard = self.world.nodes[node].phone.call(None).map_or("", |c| &c.voice.keys);
                // Over a bad network a key may be lost or torn in two.
                match heard == keys || !fair {
                    true => Ok(()),
                    false => Err(format!("{who} heard the keys {heard:?}")),
                }
            }
            Step::Sound { who, name, heard } => {
                let node = self.node(who)?;
                let sounds = |w: &World| -> Vec<&'static str> {
                    w.nodes[node].phone.calls.iter().flat_map(|c| c.voice.sounds.clone()).collect()
                };
                let until = self.world.now
                    + if !heard {
                        0
                    } else if fair {
                        8 * SEC
                    } else {
                        40 * SEC
                    };
                let found = self.world.play_until(until, |w| sounds(w).contains(&name.as_str()));
                match found == *heard {
                    true => Ok(()),
                    false => Err(format!("{who} heard {:?}", sounds(&self.world))),
                }
            }
            Step::MayHave { who, pattern } => {
                let node = self.node(who)?;
                while self.world.take(node, |s| pattern.fits(s)).is_some() {}
                Ok(())
            }
            Step::AtMost { who, times, method } => {
                let node = self.node(who)?;
                let inbox = self.world.nodes[node].phone.inbox.iter();
                let got = inbox.filter(|s| s.msg.code().is_none() && s.msg.method() == method).count();
                match got <= *times {
                    true => Ok(()),
                    false => Err(format!("{who} got {got} of them")),
                }
            }
            Step::Record(fields) => {
                let at = self.seen_records;
                let until = self.world.now + if fair { 2 * SEC } else { 100 * SEC };
                if !self.world.play_until(until, |w| w.oracle.records.len() > at) {
                    return Err("no record was written".into());
                }
                self.seen_records += 1;
                let record = self.world.oracle.records[at].clone();
                for (key, want) in fields {
                    check(&record, key, want, fair)?;
                }
                Ok(())
            }
            Step::NoRecord => match self.world.oracle.records.len() == self.seen_records {
                true => Ok(()),
                false => Err("there is a record".into()),
            },
            Step::Registered(who, want) => {
                let node = self.node(who)?;
                let until = self.world.now + if fair { 2 * SEC } else { 40 * SEC };
                let is = self.world.play_until(until, |w| {
                    let now = w.now;
                    w.nodes[node].phone.registered.is_some_and(|u| u > now) == *want
                });
                is.then_some(()).ok_or_else(|| format!("{who} is {}registered", if *want { "not " } else { "" }))
            }
            Step::Health(who, health) => {
                let node = self.node(who)?;
                self.world.nodes[node].health = *health;
                Ok(())
            }
            Step::Restart(who) => {
                let node = self.node(who)?;
                self.world.nodes[node].phone.restart();
                Ok(())
            }
            Step::Disconnect(who, noticed) => {
                let node = self.node(who)?;
                self.world.disconnect(node, *noticed);
                Ok(())
            }
            Step::Login { who, reason } => {
                let node = self.node(who)?;
                let ip = self.world.nodes[node].phone.id.address.ip();
                let told =
                    self.world.logins.iter().any(|l| l.source.remote.ip() == ip && l.reason.contains(reason.as_str()));
                told.then_some(()).ok_or_else(|| format!("the operator was told {:?}", self.world.logins))
            }
            Step::NotTaken { who, reason } => {
                let node = self.node(who)?;
                let ip = self.world.nodes[node].phone.id.address.ip();
                let told = self.world.not_taken.iter().filter(|c| c.source.remote.ip() == ip);
                let told = told.filter(|c| c.because.contains(reason.as_str())).count();
                (told == 1).then_some(()).ok_or_else(|| format!("the operator was told {:?}", self.world.not_taken))
            }
            Step::Reload(with) => {
                let directory = office::directory(with)?;
                self.world.reload(directory);
                self.with.clone_from(with);
                Ok(())
            }
            Step::Spray { who, time } => {
                let node = self.node(who)?;
                let from = std::net::SocketAddr::new(self.world.nodes[node].phone.id.address.ip(), 7777);
                let until = self.world.now + time;
                let mut seq: u16 = 0;
                while self.world.now < until {
                    seq = seq.wrapping_add(1);
                    for port in self.world.open_ports() {
                        let mut packet = vec![0x80, 8];
                        packet.extend_from_slice(&seq.to_be_bytes());
                        packet.extend_from_slice(&(u32::from(seq) * 160).to_be_bytes());
                        packet.extend_from_slice(b"EVIL");
                        packet.extend([0xee; 160]);
                        self.world.inject_rtp(from, port, packet);
                    }
                    let next = self.world.now + 20 * MS;
                    self.world.play(next);
                }
                Ok(())
            }
            Step::Agent { extension, do_not_disturb, paused } => {
                let (do_not_disturb, paused) = (*do_not_disturb, *paused);
                let ask = Ask::Agent { extension: extension.as_str().into(), do_not_disturb, paused };
                self.world.tell(Event::Command { id: CommandId(0), ask });
                Ok(())
            }
            Step::Page { number, sound } => {
                let ask = Ask::Page { page: number.as_str().into(), sound: sound.as_str().into() };
                self.world.tell(Event::Command { id: CommandId(0), ask });
                Ok(())
            }
            Step::Kill => {
                // Another seed: no identifier of the new run is one of the old.
                self.seed = self.seed.wrapping_add(1 << 32);
                let core = (self.core)(office::directory(&self.with)?, self.seed);
                self.world.kill_server(core);
                Ok(())
            }
            Step::Drain => {
                self.world.tell(Event::Drain);
                Ok(())
            }
            Step::Rest => {
                self.rested = true;
                self.world.come_to_rest();
                let more = self.world.oracle.records.len() - self.seen_records;
                match more {
                    0 => Ok(()),
                    n => Err(format!("{n} more records than the ladder names")),
                }
            }
        }
    }

    fn expect(&mut self, who: &str, call: Option<usize>, pattern: &Pattern) -> Result<(), String> {
        let node = self.node(who)?;
        let since = self.world.now;
        let patience = match (self.fair, &pattern.what) {
            (true, _) => pattern.within.unwrap_or(5 * SEC),
            (false, What::Response(100..=199)) => 2 * SEC,
            (false, _) => pattern.within.unwrap_or(0).max(40 * SEC),
        };
        let of_call = |s: &Seen| call.is_none() || s.call == call;
        let mut found = None;
        self.world.play_until(since + patience, |w| {
            found = w.take(node, |s| of_call(s) && pattern.fits(s) && pattern.reads_right(s).is_ok());
            found.is_some()
        });
        let Some(seen) = found else {
            // Finals must come over any network; what is provisional, and the way things are told, may be lost.
            let firm = matches!(pattern.what, What::Response(200..)) && pattern.of.is_none();
            if !self.fair && !firm {
                return Ok(());
            }
            if let Some(seen) = self.world.take(node, |s| of_call(s) && pattern.fits(s)) {
                return pattern.reads_right(&seen);
            }
            let inbox = &self.world.nodes[node].phone.inbox;
            let got: Vec<String> = inbox.iter().filter(|s| !s.used && !s.again).map(|s| s.msg.label()).collect();
            return Err(format!("{who} did not get it; unread: {got:?}"));
        };
        if let Some(not_before) = pattern.not_before.filter(|_| self.fair)
            && seen.at < since + not_before
        {
            return Err(format!("it came {} ms after the line before", (seen.at - since.min(seen.at)) / MS));
        }
        Ok(())
    }

    fn both_up(&mut self, a: usize, b: usize) -> Result<(), String> {
        let until = self.world.now + if self.fair { SEC } else { 40 * SEC };
        let up = |w: &World, n: usize| w.nodes[n].phone.calls.iter().any(|c| c.stage == Stage::Up);
        match self.world.play_until(until, |w| up(w, a) && up(w, b)) {
            true => Ok(()),
            false => Err("they are not both in a call".into()),
        }
    }

    /// Whether `a` hears `b`, and nobody else.
    fn hears(&self, a: usize, b: usize, since: Time) -> Result<(), String> {
        let (pa, pb) = (&self.world.nodes[a].phone, &self.world.nodes[b].phone);
        let theirs: Vec<_> = pb.calls.iter().map(|c| c.voice.tone).collect();
        let since = if self.fair { since + 200 * MS } else { since };
        let heard: Vec<_> = pa.calls.iter().flat_map(|c| c.hears_since(since)).collect();
        let (an, bn) = (&pa.id.name, &pb.id.name);
        if !heard.iter().any(|t| theirs.contains(t)) {
            return Err(format!("{an} does not hear {bn}"));
        }
        match heard.iter().find(|t| !theirs.contains(t)) {
            Some(other) => Err(format!("{an} hears {other:x?} besides {bn}")),
            None => Ok(()),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        if !self.rested {
            return Err("a ladder ends with `at rest`".into());
        }
        if let Some(fault) = self.world.oracle.faults.first() {
            return Err(format!("oracle: {fault}"));
        }
        if !self.fair {
            return Ok(());
        }
        for node in &self.world.nodes {
            let unexpected = node.phone.inbox.iter().find(|s| {
                let cancelled = s.msg.code() == Some(487);
                is_news(s) && !cancelled
            });
            if let Some(seen) = unexpected {
                let what = crate::world::describe(&seen.msg);
                let at = seen.at as f64 / SEC as f64;
                return Err(format!("{} got at {at:.3} s what no line names: {what}", node.phone.id.name));
            }
        }
        Ok(())
    }

    fn node(&self, who: &str) -> Result<usize, String> {
        self.world.node(who).ok_or_else(|| format!("who is {who}?"))
    }
}

/// What a ladder has to name.
fn is_news(seen: &Seen) -> bool {
    if seen.used || seen.again {
        return false;
    }
    match &seen.msg.first {
        // A refresh of the session timer.
        First::Request { method, .. } if method == "UPDATE" && seen.msg.body.is_empty() => false,
        First::Request { method, .. } => {
            matches!(method.as_str(), "INVITE" | "CANCEL" | "BYE" | "UPDATE" | "INFO" | "MESSAGE" | "REFER" | "PRACK")
        }
        First::Response { code, .. } => {
            seen.msg.method() == "INVITE" && *code >= 200 && !matches!(code, 401 | 407)
                || *code >= 300 && !matches!(code, 401 | 407)
        }
    }
}

impl Pattern {
    fn fits(&self, seen: &Seen) -> bool {
        match &self.what {
            What::Request(methods) => seen.msg.code().is_none() && methods.split('|').any(|m| m == seen.msg.method()),
            What::Response(code) => {
                let quiet = matches!(seen.msg.method(), "CANCEL" | "BYE" | "INFO" | "UPDATE");
                let method = match &self.of {
                    Some(of) => seen.msg.method() == of,
                    None => !quiet || *code >= 300,
                };
                seen.msg.code() == Some(*code) && method
            }
        }
    }
}

impl Pattern {
    /// Whether the text is as the line says.
    fn reads_right(&self, seen: &Seen) -> Result<(), String> {
        let text = String::from_utf8_lossy(&seen.msg.write()).into_owned();
        if let Some(holds) = self.holds.iter().find(|h| !text.contains(h.as_str())) {
            return Err(format!("{holds:?} is not in it:\n{text}"));
        }
        match self.lacks.iter().find(|l| text.contains(l.as_str())) {
            Some(lacks) => Err(format!("{lacks:?} is in it:\n{text}")),
            None => Ok(()),
        }
    }
}

/// A request that somebody who listened might send in a call of the victim's: same Call-ID, same tags or nearly.
fn forged(world: &World, method: &str, victim: usize, tag: Tag) -> Option<Msg> {
    let phone = &world.nodes[victim].phone;
    let call = phone.calls.last()?;
    let dialog = call.dialogs.last()?;
    let spoil = |value: &str| match (tag, value.rfind("tag=")) {
        (Tag::Wrong, Some(at)) => format!("{}tag=0000{}", &value[..at], &value[at + 8..]),
        _ => value.to_owned(),
    };
    // An ACK has the number of the INVITE that it is for.
    let cseq = if method == "ACK" { dialog.cseq } else { dialog.cseq + 50 };
    let mut msg = Msg::request(method, &dialog.target)
        .with("Max-Forwards", "70")
        .with("From", dialog.local.clone())
        .with("To", spoil(&dialog.remote))
        .with("Call-ID", call.call_id.clone())
        .with("CSeq", format!("{cseq} {method}"));
    if matches!(method, "INVITE" | "UPDATE") {
        msg = msg.with("Contact", "<sip:eve@198.18.0.9:5060>");
    }
    let _ = uri_of(&dialog.remote);
    Some(msg)
}

fn check(record: &CallRecord, key: &str, want: &str, fair: bool) -> Result<(), String> {
    let word = |v: &dyn fmt::Debug| format!("{v:?}").to_lowercase();
    let plain = |v: &Option<String>| v.clone().unwrap_or_else(|| "none".into());
    let got = match key {
        "outcome" => {
            serde_json::to_value(record.outcome).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
        }
        "direction" => word(&record.direction),
        "answered_by" => plain(&record.answered_by),
        "caller" => plain(&record.caller.number),
        "name" => plain(&record.caller.name),
        "category" => plain(&record.caller.category),
        "region" => plain(&record.caller.region),
        "called" => record.called.number.clone(),
        "trunk" => plain(&record.trunk),
        "shown" => plain(&record.shown),
        "by" => word(&record.hangup.by),
        "recorded" => if record.recordings.is_empty() { "no" } else { "yes" }.to_owned(),
        "sip" => record.hangup.sip.map_or_else(|| "none".into(), |s| s.to_string()),
        "wait_ms" | "talk_ms" | "hold_ms" => {
            let got = match key {
                "wait_ms" => record.wait_ms,
                "talk_ms" => record.talk_ms,
                _ => record.hold_ms,
            };
            let wanted: u64 = want.parse().map_err(|_| format!("{key}={want}"))?;
            let tolerance = if fair { 60 } else { u64::MAX };
            return match got.abs_diff(wanted) <= tolerance {
                true => Ok(()),
                false => Err(format!("{key} is {got}")),
            };
        }
        "leg" => {
            // leg=extension:121:elsewhere
            let who = record.journey.iter().flat_map(|p| &p.who);
            let legs: Vec<String> = who.map(|w| format!("{}:{}", w.target, w.result)).collect();
            return match legs.iter().any(|l| l == want) || !fair {
                true => Ok(()),
                false => Err(format!("legs: {legs:?}")),
            };
        }
        "phases" => {
            if !fair {
                return Ok(());
            }
            let names: Vec<String> = record.journey.iter().map(|p| word(&p.phase)).collect();
            names.join(",")
        }
        "why" => {
            let all: Vec<String> = record.explain.iter().map(|w| format!("{}: {}", w.rule, w.because)).collect();
            return match all.iter().any(|w| w.contains(want)) {
                true => Ok(()),
                false => Err(format!("explain: {all:?}")),
            };
        }
        _ => return Err(format!("what is {key}?")),
    };
    match want.split('|').any(|w| w == got) {
        true => Ok(()),
        false => Err(format!("{key} is {got}")),
    }
}

// --- reading ----------------------------------------------------------------------------------------------------------

/// Columns of a line: at least two blanks between them; a `#` ends it.
fn columns(line: &str) -> Vec<String> {
    let (mut out, mut current, mut quoted, mut blanks) = (Vec::new(), String::new(), false, 0);
    for c in line.chars() {
        match c {
            '#' if !quoted => break,
            ' ' | '\t' if !quoted => {
                blanks += 1;
                if c == '\t' {
                    blanks += 1;
                }
                continue;
            }
            '"' => quoted = !quoted,
            _ => {}
        }
        if blanks >= 2 && !current.is_empty() {
            out.push(std::mem::take(&mut current));
        } else if blanks == 1 && !current.is_empty() {
            current.push(' ');
        }
        blanks = 0;
        current.push(c);
    }
    out.push(current);
    out.retain(|c| !c.is_empty());
    out
}

/// Words of a column; what stands in quotes is one.
fn words(text: &str) -> Vec<String> {
    let (mut out, mut current, mut quoted, mut was) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                was = true;
            }
            ' ' if !quoted => {
                if was || !current.is_empty() {
                    out.push(std::mem::take(&mut current));
                }
                was = false;
            }
            _ => current.push(c),
        }
    }
    if was || !current.is_empty() {
        out.push(current);
    }
    out
}

fn time(text: &str) -> Result<Time, String> {
    office::duration(text).map(|d| d.as_micros() as Time).ok_or_else(|| format!("{text} is no time"))
}

fn whose(text: &str) -> Result<(String, Option<usize>), String> {
    match text.split_once('/') {
        Some((who, n)) => {
            let n: usize = n.parse().map_err(|_| format!("{text}: which call?"))?;
            Ok((who.to_owned(), Some(n.checked_sub(1).ok_or("calls count from 1")?)))
        }
        None => Ok((text.to_owned(), None)),
    }
}

fn step(w: &[&str]) -> Result<Step, String> {
    Ok(match w {
        ["at", "rest"] => Step::Rest,
        ["agent", extension, what] => {
            let (do_not_disturb, paused) = match *what {
                "pauses" => (None, Some(true)),
                "resumes" => (None, Some(false)),
                "dnd" => (Some(true), None),
                "no-dnd" => (Some(false), None),
                _ => return Err(format!("{what}: pauses, resumes, dnd or no-dnd")),
            };
            Step::Agent { extension: (*extension).to_owned(), do_not_disturb, paused }
        }
        ["drain"] => Step::Drain,
        ["kill", "the", "server"] => Step::Kill,
        ["page", number, sound] => Step::Page { number: number.to_string(), sound: sound.to_string() },
        ["wait", t] => Step::Wait(time(t)?),
        ["talk", a, b, t] => Step::Talk { a: a.to_string(), b: b.to_string(), time: time(t)? },
        ["silent", who @ .., t] => Step::Silent { who: who.iter().map(|s| s.to_string()).collect(), time: time(t)? },
        ["record", fields @ ..] => {
            let split = |f: &&str| f.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            Step::Record(fields.iter().map(|f| split(f).ok_or(format!("{f}: key=value"))).collect::<Result<_, _>>()?)
        }
        ["no", "record"] => Step::NoRecord,
        ["reload", fields @ ..] => {
            let pairs = fields.chunks(2).map(|c| match c {
                [k, v] => Ok((k.to_string(), v.to_string())),
                _ => Err("reload KEY VALUE ...".to_owned()),
            });
            Step::Reload(pairs.collect::<Result<_, _>>()?)
        }
        [who, "hears", "sound", name] => Step::Sound { who: who.to_string(), name: name.to_string(), heard: true },
        [who, "never", "heard", "sound", name] => {
            Step::Sound { who: who.to_string(), name: name.to_string(), heard: false }
        }
        [who, "hears", "keys", keys] => Step::Keys { who: who.to_string(), keys: keys.to_string() },
        [to, "hears", one, "and", two, t] => {
            Step::Both { of: [one.to_string(), two.to_string()], to: to.to_string(), time: time(t)? }
        }
        [to, "hears", from, t] => Step::OneWay { from: from.to_string(), to: to.to_string(), time: time(t)? },
        [who, "is", "registered"] => Step::Registered(who.to_string(), true),
        [who, "is", "not", "registered"] => Step::Registered(who.to_string(), false),
        [who, "is", health] => Step::Health(who.to_string(), read_health(health)?),
        [who, "got", "at", "most", times, method] => {
            let times = times.parse().map_err(|_| format!("{times} times?"))?;
            Step::AtMost { who: who.to_string(), times, method: method.to_string() }
        }
        [who, "may", "have", "got", what] => Step::MayHave { who: who.to_string(), pattern: pattern(what, &[])? },
        [who, "restarts"] => Step::Restart(who.to_string()),
        [who, "loses", "its", "connection"] => Step::Disconnect(who.to_string(), true),
        [who, "loses", "its", "connection", "unnoticed"] => Step::Disconnect(who.to_string(), false),
        ["call", "of", who, "not", "taken", reason] => {
            Step::NotTaken { who: who.to_string(), reason: reason.to_string() }
        }
        ["login", "of", who, "failed", reason] => Step::Login { who: who.to_string(), reason: reason.to_string() },
        [who, "sprays", "RTP", t] => Step::Spray { who: who.to_string(), time: time(t)? },
        [who, "->", "forged", method, "of", victim, tag @ ..] => {
            let tag = if tag.is_empty() { Tag::Right } else { Tag::Wrong };
            let (who, method, victim) = (who.to_string(), method.to_string(), victim.to_string());
            Step::Forge { who, method, victim, tag }
        }
        [who, "->", act @ ..] => {
            let (who, call) = whose(who)?;
            Step::Do { who, call, act: read_act(act)? }
        }
        [who, "<-", "nothing", t @ ..] => {
            Step::Nothing { who: who.to_string(), time: t.first().map_or(Ok(SEC), |t| time(t))? }
        }
        [who, "<-", what, rest @ ..] => {
            let (who, call) = whose(who)?;
            Step::Expect { who, call, pattern: pattern(what, rest)? }
        }
        _ => return Err("not understood".into()),
    })
}

fn read_health(word: &str) -> Result<Health, String> {
    match word {
        "dead" => Ok(Health::Dead),
        "refusing" => Ok(Health::Refusing),
        "alive" => Ok(Health::Alive),
        _ => Err(format!("what is {word}?")),
    }
}

fn pattern(what: &str, rest: &[&str]) -> Result<Pattern, String> {
    let what = match what.parse::<u16>() {
        Ok(code) => What::Response(code),
        Err(_) => What::Request(what.to_owned()),
    };
    let mut p = Pattern { what, of: None, holds: Vec::new(), lacks: Vec::new(), within: None, not_before: None };
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        let mut arg = || rest.next().copied().ok_or(format!("{word} what?"));
        match *word {
            "to" => p.of = Some(arg()?.to_owned()),
            "without" => p.lacks.push(arg()?.replace('\'', "\"")),
            "within" => p.within = Some(time(arg()?)?),
            "after" => p.not_before = Some(time(arg()?)?),
            "with" => p.holds.push(arg()?.replace('\'', "\"")),
            text => p.holds.push(text.replace('\'', "\"")),
        }
    }
    if p.within.is_none() {
        p.within = p.not_before.map(|t| t + 5 * SEC);
    }
    Ok(p)
}

fn read_act(w: &[&str]) -> Result<Act, String> {
    Ok(match w {
        ["INVITE", "by", "another", "way"] => Act::InviteByAnotherWay(None),
        ["INVITE", "by", "another", "way", "to", number] => Act::InviteByAnotherWay(Some(number.to_string())),
        ["INVITE", to, rest @ ..] => {
            let mut invite = Invite { to: to.to_string(), ..Invite::default() };
            let mut rest = rest.iter();
            while let Some(word) = rest.next() {
                let mut arg = || rest.next().copied().ok_or(format!("{word} what?"));
                match *word {
                    "from" => invite.from = Some(arg()?.to_owned()),
                    "late" => invite.late = true,
                    "session" => invite.session = Some(arg()?.to_owned()),
                    "hops" => invite.hops = Some(arg()?.parse().map_err(|_| "how many hops?")?),
                    "header" => invite.headers.push(header(arg()?)?),
                    "fax" => invite.extra = "m=image 4900 udptl t38\r\na=T38FaxVersion:0\r\n".into(),
                    "video" => invite.extra = "m=video 4900 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n".into(),
                    "screen" => invite.extra = "m=application 4900 TCP/BFCP *\r\n".into(),
                    other => return Err(format!("what is {other}?")),
                }
            }
            Act::Invite(invite)
        }
        ["CANCEL"] => Act::Cancel,
        ["BYE"] => Act::Bye,
        ["HOLD"] => Act::Reinvite(Offer::Hold),
        ["HOLD", "inactive"] => Act::Reinvite(Offer::Inactive),
        ["HOLD", "zero"] => Act::Reinvite(Offer::Zero),
        ["RESUME"] => Act::Reinvite(Offer::Resume),
        ["REINVITE", "late"] => Act::Reinvite(Offer::Late),
        ["UPDATE"] => Act::Update(None),
        ["REFRESH", seconds] => Act::Refresh(seconds.parse().map_err(|_| "of how many seconds?")?),
        ["UPDATE", "hold"] => Act::Update(Some(Offer::Hold)),
        ["UPDATE", "resume"] => Act::Update(Some(Offer::Resume)),
        ["INFO", key] => Act::Info(key.chars().next().unwrap_or('0')),
        ["SOUND", key] => Act::Sound(key.chars().next().unwrap_or('0')),
        ["KEY", key] => Act::Press(key.chars().next().unwrap_or('0')),
        ["OPTIONS", to] => Act::Options(to.to_string()),
        ["MESSAGE", to, text] => Act::Message(to.to_string(), text.to_string()),
        ["REGISTER", rest @ ..] => {
            let (mut expires, mut password) = (3600, None);
            let mut rest = rest.iter();
            while let Some(word) = rest.next() {
                let arg = rest.next().ok_or(format!("{word} what?"))?;
                match *word {
                    "for" => expires = (time(arg)? / SEC) as u32,
                    "password" => password = Some(arg.to_string()),
                    other => return Err(format!("what is {other}?")),
                }
            }
            Act::Register { expires, password, all: false }
        }
        ["UNREGISTER"] => Act::Register { expires: 0, password: None, all: false },
        ["UNREGISTER", "all"] => Act::Register { expires: 0, password: None, all: true },
        ["AGAIN"] => Act::Again,
        ["hush"] => Act::Speak(false),
        ["speak"] => Act::Speak(true),
        [code, rest @ ..] if code.parse::<u16>().is_ok() => {
            let mut respond = Respond { code: code.parse().unwrap_or(500), ..Respond::default() };
            let mut rest = rest.iter();
            while let Some(word) = rest.next() {
                let mut arg = || rest.next().copied().ok_or(format!("{word} what?"));
                match *word {
                    "as" => respond.tag = Some(arg()?.to_owned()),
                    "sdp" => respond.sdp = true,
                    "to" => {
                        let to = arg()?;
                        respond.headers.push(("Contact".into(), format!("<sip:{to}@{}>", office::DOMAIN)));
                    }
                    "header" => respond.headers.push(header(arg()?)?),
                    phrase => respond.phrase = Some(phrase.to_owned()),
                }
            }
            Act::Respond(respond)
        }
        _ => return Err("not understood".into()),
    })
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header has a colon")?;
    Ok((name.trim().to_owned(), value.trim().replace('\'', "\"")))
}

fn given(w: &[&str]) -> Result<Given, String> {
    let respond = |code: u16| Act::Respond(Respond { code, ..Respond::default() });
    Ok(match w {
        ["rings"] => Given::OnInvite(100 * MS, respond(180)),
        ["rings", "after", t] => Given::OnInvite(time(t)?, respond(180)),
        ["answers"] => Given::OnInvite(200 * MS, respond(200)),
        ["answers", "after", t] => Given::OnInvite(time(t)?, respond(200)),
        ["answers", code, "after", t] => {
            Given::OnInvite(time(t)?, respond(code.parse().map_err(|_| format!("{code}?"))?))
        }
        ["presses", key, "after", t] => Given::OnAnswer(time(t)?, Act::Press(key.chars().next().unwrap_or('0'))),
        ["hangs", "up", "after", t] => Given::OnAnswer(time(t)?, Act::Bye),
        ["asks", "for", "the", "password"] => Given::AsksPassword,
        ["asks", "for", "another", "password"] => Given::AsksOtherPassword,
        ["ignores", "CANCEL"] => Given::DeafToCancel,
        ["sends", "no", "ACK"] => Given::NoAck,
        ["knows", "no", "timers"] => Given::NoTimer,
        ["knows", "no", "UPDATE"] => Given::NoUpdate,
        ["wants", "registrations", "of", t] => Given::MinExpires(time(t)? / SEC),
        ["ignores", "OPTIONS"] => Given::DeafToOptions,
        ["wants", "sessions", "of", t] => Given::MinSe((time(t)? / SEC) as u32),
        ["wants", "refreshes", "of", t] => Given::MinSeLater((time(t)? / SEC) as u32),
        ["refuses", method, "with", code] => {
            Given::Refuses(method.to_string(), code.parse().map_err(|_| format!("{code}?"))?)
        }
        ["speaks", formats @ ..] => {
            let read = |f: &&str| {
                let (pt, name) = f.split_once('=').ok_or(format!("{f}: 8=PCMA/8000"))?;
                Ok((pt.parse().map_err(|_| format!("{f}: 8=PCMA/8000"))?, name.to_owned()))
            };
            Given::Formats(formats.iter().map(read).collect::<Result<_, String>>()?)
        }
        ["is", health] => Given::Health(read_health(health)?),
        ["forgets", "to", "refresh"] => Given::Forgets,
        ["answers", "holds", "carelessly"] => Given::Careless,
        ["hears", "many"] => Given::HearsMany,
        ["calls", "itself", name] => Given::Calls(name.to_string()),
        _ => return Err("not understood".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        assert_eq!(columns("a <- INVITE    b <- INVITE  # both"), ["a <- INVITE", "b <- INVITE"]);
        assert_eq!(
            words("121 <- CANCEL \"Call completed  elsewhere\""),
            ["121", "<-", "CANCEL", "Call completed  elsewhere"]
        );
    }
}
