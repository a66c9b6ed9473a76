//! A seed draws a world (weather, people and their habits, carriers and their faults) and plays some minutes of it. The
//! oracle judges. Nothing is expected of a particular call here; everything is expected of all of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use strowger::base::Rng;
use strowger::call::record::CallRecord;
use strowger::directory::Directory;

use crate::ladder::WORKERS;
use crate::net::Weather;
use crate::office;
use crate::phone::text::Msg;
use crate::phone::{Act, Habit, Invite, Offer, Respond, Stage, Wire};
use crate::world::{Health, Subject, World};
use crate::{MS, SEC, Time, queues};

/// What one seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// What did not hold.
    pub faults: Vec<String>,
    /// The whole story.
    pub ladder: String,
    /// Every message.
    pub messages: String,
    /// Records written.
    pub records: usize,
    /// Of them answered.
    pub answered: usize,
    /// SIP messages through the core.
    pub sip: usize,
    /// RTP packets through the relay.
    pub rtp: u64,
    /// Same for the same seed.
    pub print: u64,
    /// Drawn weather, in words.
    pub weather: String,
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Op {
    Do(usize, Act),
    Health(usize, Health),
    Restart(usize),
    Disconnect(usize),
    Forge(usize, usize, &'static str),
    Reload(Vec<(String, String)>),
}

/// Numbers of ours that a carrier may call, by carrier.
const DIDS: [(&str, &str); 7] = [
    ("carrier-a", "+73433000001"),
    ("carrier-a", "+74013000001"),
    ("carrier-a", "+78003000001"),
    ("carrier-a2", "+73433000001"),
    ("carrier-b", "+73833000001"),
    ("carrier-b", "+73833000002"),
    ("carrier-b", "+73833000003"),
];

/// Mobiles that have to confirm: of a desk phone, and of a step.
const CONFIRMS: &str = "+79120000101";
/// The other.
const CONFIRMS_TOO: &str = "+79120000202";
/// What is at the end of the queue `sales`, and nobody's agent.
const LAST: &str = "extension:130";

/// The queue to which a call goes in every drawn office.
fn queue_of(record: &CallRecord) -> Option<&'static str> {
    match &*record.called.number {
        "+73433000001" | "800" => Some("sales"),
        "801" => Some("service"),
        _ => None,
    }
}

/// Plays the world of a seed.
pub fn play(seed: u64, core: impl Fn(Directory, u64) -> Box<dyn Subject>) -> Outcome {
    let mut rng = Rng::from_number(seed ^ 0x5741_524d);
    let rng = &mut rng;
    let changes = draw_office(rng);
    let directory = office::directory(&changes).expect("drawn changes are understood");
    let recorded = directory.recording != strowger::directory::Recording::None;
    let direct = directory.media.relay == strowger::directory::Relay::Never;
    let mut world = World::new(core(directory, seed), Weather::FAIR, WORKERS, seed);
    world.direct = direct;
    world.records_come_again = recorded;
    world.confirms.extend([CONFIRMS, CONFIRMS_TOO]);
    for (name, address, trunk) in office::CARRIERS {
        let habit = draw_carrier(rng, trunk == "carrier-a");
        world.add_carrier(name, address, trunk, Wire::Udp, habit);
    }
    let carriers = world.nodes.len();
    for extension in ["121", "122", "123", "124", "130", "221"] {
        if one_in(rng, 5) {
            continue;
        }
        let devices = if one_in(rng, 4) { 2 } else { 1 };
        for device in 0..devices {
            let wire = if one_in(rng, 3) { Wire::Tcp } else { Wire::Udp };
            let habit = draw_phone(rng);
            world.add_phone(&format!("{extension}{}", ["", "b"][device]), extension, wire, habit);
        }
    }
    let phones = world.nodes.len();
    let eve = world.add_stranger("eve");
    for phone in carriers..phones {
        let _ = world.act(phone, None, &Act::Register { expires: 600, password: None, all: false });
    }
    world.play(world.now + 3 * SEC);
    let weather = draw_weather(rng);
    world.set_weather(weather);
    let rush = one_in(rng, 3);
    let mut ops = draw_life(rng, carriers, phones, eve, &world);
    if rush {
        ops.extend(draw_rush(rng, &world));
    }
    ops.sort_by_key(|op| op.0);
    for (at, op) in ops {
        world.play(at);
        run(&mut world, op);
    }
    wind_up(&mut world);
    world.come_to_rest();
    let faults = queues::faults(&world.oracle.records, LAST, queue_of);
    let now = world.now;
    faults.iter().for_each(|fault| world.oracle.fault(now, fault));
    finish(world, &weather)
}

fn run(world: &mut World, op: Op) {
    match op {
        // Whoever has nothing to do it on lets it be.
        Op::Do(node, act) => drop(world.act(node, None, &act)),
        Op::Health(node, health) => world.nodes[node].health = health,
        Op::Restart(node) => {
            world.disconnect(node, true);
            world.nodes[node].phone.restart();
            let _ = world.act(node, None, &Act::Register { expires: 600, password: None, all: false });
        }
        Op::Disconnect(node) => {
            world.disconnect(node, true);
            let _ = world.act(node, None, &Act::Register { expires: 600, password: None, all: false });
        }
        Op::Forge(eve, victim, method) => {
            let phone = &world.nodes[victim].phone;
            let Some((call, dialog)) = phone.calls.last().and_then(|c| Some((c, c.dialogs.last()?))) else { return };
            let msg = Msg::request(method, &dialog.target)
                .with("Max-Forwards", "70")
                .with("From", dialog.local.clone())
                .with("To", dialog.remote.clone())
                .with("Call-ID", call.call_id.clone())
                .with("CSeq", format!("{} {method}", dialog.cseq + 9))
                .with("Contact", "<sip:eve@198.18.0.1:5060>");
            let _ = world.act(eve, None, &Act::Raw(Box::new(msg)));
        }
        Op::Reload(changes) => {
            if let Ok(directory) = office::directory(&changes) {
                world.reload(directory);
            }
        }
    }
}

/// Everybody comes back, and everybody hangs up.
fn wind_up(world: &mut World) {
    for node in &mut world.nodes {
        node.health = Health::Alive;
    }
    for _ in 0..60 {
        for node in 0..world.nodes.len() {
            for call in 0..world.nodes[node].phone.calls.len() {
                let c = &world.nodes[node].phone.calls[call];
                let act = match (c.stage, c.ours) {
                    (Stage::Over, _) => continue,
                    (Stage::Up, _) => Act::Bye,
                    (Stage::Setup, true) => Act::Cancel,
                    (Stage::Setup, false) => Act::Respond(Respond { code: 480, ..Respond::default() }),
                };
                let _ = world.act(node, Some(call), &act);
            }
        }
        world.play(world.now + SEC);
    }
}

fn finish(world: World, weather: &Weather) -> Outcome {
    let mut hasher = DefaultHasher::new();
    for line in &world.log {
        (line.at, line.node, line.out, &line.bytes[..]).hash(&mut hasher);
    }
    let records = &world.oracle.records;
    Outcome {
        records: records.len(),
        answered: records.iter().filter(|r| r.answered_at.is_some()).count(),
        sip: world.log.len(),
        rtp: world.relay_packets,
        print: hasher.finish(),
        weather: format!(
            "loss {}, twice {}, late {} per mille, jitter {} ms",
            weather.loss,
            weather.twice,
            weather.late,
            weather.jitter / MS
        ),
        ladder: if world.oracle.faults.is_empty() { String::new() } else { world.ladder() },
        messages: if world.oracle.faults.is_empty() { String::new() } else { world.messages() },
        faults: world.oracle.faults,
    }
}

// --- drawing ----------------------------------------------------------------------------------------------------------

fn one_in(rng: &mut Rng, n: u64) -> bool {
    rng.below(n) == 0
}

fn between(rng: &mut Rng, a: Time, b: Time) -> Time {
    a + rng.below(b - a)
}

fn pick<'a, T>(rng: &mut Rng, of: &'a [T]) -> &'a T {
    &of[rng.below(of.len() as u64) as usize]
}

fn draw_weather(rng: &mut Rng) -> Weather {
    let mut weather = Weather { delay: between(rng, MS, 80 * MS), ..Weather::FAIR };
    weather.jitter = *pick(rng, &[0, 5 * MS, 60 * MS]);
    weather.loss = *pick(rng, &[0, 0, 10, 50, 200, 300]);
    weather.twice = *pick(rng, &[0, 0, 100, 1000]);
    weather.late = *pick(rng, &[0, 0, 50, 200]);
    weather
}

fn draw_office(rng: &mut Rng) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    let mut with = |key: &str, value: &str| changes.push((key.to_owned(), value.to_owned()));
    with("queue.sales.agents", pick::<&str>(rng, &["121,122", "121,122,123,221", "121"]));
    with("queue.sales.ring", pick::<&str>(rng, &["5s", "20s"]));
    with("queue.sales.wait", pick::<&str>(rng, &["5s", "30s"]));
    with("media.timeout", pick::<&str>(rng, &["10s", "60s"]));
    with("node.digest", pick::<&str>(rng, &["md5,sha-256", "sha-256,md5", "md5"]));
    if one_in(rng, 3) {
        with("recording.mode", "all");
    }
    if one_in(rng, 10) {
        with("media.relay", "never");
    }
    if one_in(rng, 4) {
        with("trunk.carrier-a.register", "yes");
    }
    if one_in(rng, 4) {
        with("trunk.carrier-b.max_calls", "1");
    }
    if one_in(rng, 4) {
        with("extension.121.max_calls", "1");
    }
    if one_in(rng, 3) {
        with(
            "route.+73833000001",
            pick::<&str>(
                rng,
                &[
                    "extension:122@4s,extension:130@5s",
                    "number:+79120000777",
                    "queue:sales",
                    "extension:123@6s,extension:124+2s,number:+79120000202+1s!",
                    "play:closed.wav",
                    "play:closed.wav!,extension:122@8s,queue:service",
                    "play:closed.wav!,extension:123@6s,number:+79120000777+1s",
                    "number:+79120000202@10s!,queue:service",
                ],
            ),
        );
    }
    if one_in(rng, 2) {
        with("queue.sales.strategy", pick::<&str>(rng, &STRATEGIES));
        with("queue.sales.wrap_up", pick::<&str>(rng, &["0s", "4s"]));
    }
    if one_in(rng, 2) {
        with("queue.service.strategy", pick::<&str>(rng, &STRATEGIES));
        with("queue.service.wait", pick::<&str>(rng, &["none", "10s"]));
        with("queue.service.music", "music.wav");
    }
    if one_in(rng, 2) {
        with("extension.121.mobile", pick::<&str>(rng, &["+79120000101!", "+79120000101@3s!"]));
    }
    if one_in(rng, 4) {
        with("extension.123.mobile", "+79120000102");
    }
    let steps = ["extension:122", "queue:service", "number:+79120000202!", "extension:999", "reject:486"];
    let answers = [&steps[..], &["go-on", "fails", "silent"]].concat();
    with("hook.crm", pick::<&str>(rng, &answers));
    if one_in(rng, 2) {
        with("route.+73833000002", pick::<&str>(rng, &["hook:crm", "hook:crm,queue:sales", "play:closed.wav!"]));
    }
    changes
}

/// How queues ring.
const STRATEGIES: [&str; 4] = ["ring-all", "first-free", "longest-idle", "round-robin"];

fn draw_formats(rng: &mut Rng, habit: &mut Habit) {
    let event = |pt: u8| (pt, "telephone-event/8000".to_owned());
    let (a, u) = ((8, "PCMA/8000".to_owned()), (0, "PCMU/8000".to_owned()));
    habit.formats = match rng.below(5) {
        0 => vec![u, a, event(96)],
        1 => vec![a],
        2 => vec![a, event(110)],
        _ => vec![a, u, event(101)],
    };
}

fn draw_phone(rng: &mut Rng) -> Habit {
    let mut habit = Habit { timer: !one_in(rng, 4), ..Habit::default() };
    draw_formats(rng, &mut habit);
    let respond = |code| Act::Respond(Respond { code, ..Respond::default() });
    if !one_in(rng, 6) {
        habit.on_invite.push((between(rng, 20 * MS, 400 * MS), respond(*pick(rng, &[180, 180, 180, 183]))));
    }
    match rng.below(10) {
        0 => {}
        1 => habit.on_invite.push((between(rng, 0, 6 * SEC), respond(*pick(rng, &[486, 603, 480, 302, 488, 503])))),
        _ => habit.on_invite.push((between(rng, 0, 8 * SEC), respond(200))),
    }
    if one_in(rng, 3) {
        habit.on_answer.push((between(rng, 100 * MS, 20 * SEC), Act::Bye));
    }
    if one_in(rng, 5) {
        let at = between(rng, 0, 6 * SEC);
        let hold = *pick(rng, &[Offer::Hold, Offer::Inactive, Offer::Zero]);
        habit.on_answer.push((at, Act::Reinvite(hold)));
        habit.on_answer.push((at + between(rng, 0, 6 * SEC), Act::Reinvite(Offer::Resume)));
    }
    if one_in(rng, 8) {
        habit.on_answer.push((between(rng, 0, 6 * SEC), Act::Reinvite(Offer::Late)));
    }
    habit.deaf_to_cancel = one_in(rng, 25);
    habit.no_ack = one_in(rng, 40);
    if one_in(rng, 20) {
        habit.refuse.push((pick(rng, &["INVITE", "UPDATE", "INFO"]).to_string(), *pick(rng, &[488, 500, 403])));
    }
    habit
}

fn draw_carrier(rng: &mut Rng, password: bool) -> Habit {
    let mut habit = draw_phone(rng);
    // Whoever is asked to confirm does, mostly; the others are voicemails.
    if !one_in(rng, 3) {
        let key = *pick(rng, &['1', '1', '1', '5']);
        let press = *pick(rng, &[Act::Press, Act::Info, Act::Sound]);
        habit.on_answer.push((between(rng, 500 * MS, 8 * SEC), press(key)));
    }
    if password && one_in(rng, 3) {
        let secret = if one_in(rng, 4) { "another" } else { "carrier-secret" };
        habit.challenge = Some(("office".into(), secret.into()));
    }
    if one_in(rng, 6) {
        habit.min_se = *pick(rng, &[120, 3600]);
    }
    if one_in(rng, 8) {
        // A proxy that forks behind it: two dialogs, sometimes two answers.
        let at = between(rng, 50 * MS, 3 * SEC);
        let respond = |code, tag: &str| Act::Respond(Respond { code, tag: Some(tag.into()), ..Respond::default() });
        habit.on_invite = vec![(at, respond(183, "fork1")), (at + 10 * MS, respond(180, "fork2"))];
        habit.on_invite.push((at + SEC, respond(200, "fork2")));
        if one_in(rng, 2) {
            habit.on_invite.push((at + SEC + 20 * MS, respond(200, "fork1")));
        }
    }
    habit
}

/// Many customers at once.
fn draw_rush(rng: &mut Rng, world: &World) -> Vec<(Time, Op)> {
    let begin = world.now + between(rng, 0, 30 * SEC);
    let carrier = world.node("carrier-a").expect("it is there");
    let mut ops = Vec::new();
    for n in 0..3 + rng.below(5) {
        let when = begin + between(rng, 0, 8 * SEC);
        let from = Some(format!("+7913555100{n}"));
        ops.push((when, Op::Do(carrier, Act::Invite(Invite { to: "+73433000001".into(), from, ..Invite::default() }))));
        ops.push((when + between(rng, 10 * SEC, 60 * SEC), Op::Do(carrier, Act::Bye)));
    }
    ops
}

fn draw_life(rng: &mut Rng, carriers: usize, phones: usize, eve: usize, world: &World) -> Vec<(Time, Op)> {
    let start = world.now;
    let length = between(rng, 30 * SEC, 120 * SEC);
    let calls = 3 + rng.below(12);
    let mut ops = Vec::new();
    let at = |rng: &mut Rng| start + rng.below(length);
    let any_phone = |rng: &mut Rng| carriers + rng.below((phones - carriers) as u64) as usize;
    for _ in 0..calls {
        let when = at(rng);
        let (who, mut invite) = if one_in(rng, 2) || phones == carriers {
            let (carrier, number) = *pick(rng, &DIDS);
            let caller = pick(rng, &["+79131234567", "+79135550000", "anonymous"]);
            let invite = Invite { to: number.into(), from: Some((*caller).into()), ..Invite::default() };
            (world.node(carrier).expect("it is there"), invite)
        } else {
            let to = *pick(
                rng,
                &["121", "122", "123", "130", "221", "800", "801", "89131234567", "999", "+442071234567", "112"],
            );
            (any_phone(rng), Invite { to: to.into(), ..Invite::default() })
        };
        invite.late = one_in(rng, 6);
        if one_in(rng, 5) {
            invite.session = Some((*pick(rng, &["90;refresher=uac", "90;refresher=uas", "30", "1800"])).into());
        }
        if one_in(rng, 10) {
            invite.hops = Some(rng.below(3) as u32);
        }
        if one_in(rng, 10) {
            invite.extra = "m=video 4900 RTP/AVP 99\r\na=rtpmap:99 H264/90000\r\n".into();
        }
        ops.push((when, Op::Do(who, Act::Invite(invite))));
        if one_in(rng, 6) {
            ops.push((when + between(rng, 0, SEC), Op::Do(who, Act::Again)));
        }
        if one_in(rng, 3) {
            ops.push((when + between(rng, 0, 10 * SEC), Op::Do(who, Act::Cancel)));
        }
        ops.push((when + between(rng, 2 * SEC, 40 * SEC), Op::Do(who, Act::Bye)));
    }
    for _ in 0..rng.below(12) {
        let when = at(rng);
        let who = rng.below(phones as u64) as usize;
        let op = match rng.below(14) {
            0 => Op::Do(who, Act::Reinvite(Offer::Hold)),
            1 => Op::Do(who, Act::Reinvite(Offer::Resume)),
            2 => Op::Do(who, Act::Update(Some(*pick(rng, &[Offer::Hold, Offer::Resume])))),
            3 => Op::Do(who, Act::Info('5')),
            4 => Op::Do(who, Act::Press('7')),
            5 => Op::Do(who, Act::Bye),
            6 => Op::Do(who, Act::Options("121".into())),
            7 => Op::Do(who, Act::Reinvite(Offer::Late)),
            8 => Op::Forge(eve, who, pick::<&str>(rng, &["BYE", "CANCEL", "INVITE", "UPDATE", "INFO"])),
            9 => Op::Do(eve, Act::Invite(Invite { to: "121".into(), ..Invite::default() })),
            10 => Op::Do(eve, Act::Register { expires: 3600, password: None, all: false }),
            11 if who >= carriers => Op::Do(who, Act::Message("122".into(), "coffee?".into())),
            12 => Op::Do(who, Act::Update(None)),
            _ => {
                // Whether media is relayed at all is not changed under a call by anybody in his senses.
                let mut changes = draw_office(rng);
                changes.retain(|c| c.0 != "media.relay");
                let relay = if world.direct { "never" } else { "always" };
                changes.push(("media.relay".into(), relay.into()));
                Op::Reload(changes)
            }
        };
        ops.push((when, op));
    }
    for _ in 0..rng.below(4) {
        let when = at(rng);
        let spell = between(rng, SEC, 50 * SEC);
        let who = rng.below(phones as u64) as usize;
        match rng.below(4) {
            0 if who >= carriers => ops.push((when, Op::Restart(who))),
            1 if who >= carriers => ops.push((when, Op::Disconnect(who))),
            2 => {
                ops.push((when, Op::Health(who, Health::Refusing)));
                ops.push((when + spell, Op::Health(who, Health::Alive)));
            }
            _ => {
                ops.push((when, Op::Health(who, Health::Dead)));
                ops.push((when + spell, Op::Health(who, Health::Alive)));
            }
        }
    }
    if one_in(rng, 3) {
        let who = rng.below(phones as u64) as usize;
        ops.push((at(rng), Op::Do(who, Act::Speak(false))));
    }
    ops
}
