//! What deciding about a call costs in a large company: 1,000,000 contacts, 400,000 rows of the numbering plan, 500 routes, 30 branches.
//!
//! `cargo bench --bench plan` prints Criterion's figures, then one line per figure: nanoseconds and allocations.
#![allow(clippy::disallowed_methods)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use strowger::base::Wall;
use strowger::directory::calendar::{self, Calendar, Hours, Span, Week};
use strowger::directory::contacts::{self, ContactId, NewContact};
use strowger::directory::numbering::{Draft, Numbering};
use strowger::directory::{
    Branch, Country, Directory, E164, Extension, Label, Node, Number, Region, Route, Step, Target, Trunk, When,
    spelling,
};
use strowger::policy::{Ask, Live, Moment, fork, plan};

/// Counts allocations; growing one counts as well.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is handed to the system's allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CONTACTS: u32 = 1_000_000;
const RANGES: u64 = 400_000;
const ROUTES: usize = 500;
const BRANCHES: usize = 30;

struct Free;

impl Live for Free {
    fn bindings(&self, _: &str) -> usize {
        1
    }
    fn calls(&self, _: &str) -> u32 {
        0
    }
    fn trunk_up(&self, _: &str) -> bool {
        true
    }
    fn trunk_calls(&self, _: &str) -> u32 {
        0
    }
}

fn number(digits: u64) -> E164 {
    E164::from_digits(&digits.to_string()).expect("digits of a number")
}

/// The i-th customer's number, spread over mobile codes.
fn customer(i: u32) -> E164 {
    number(79_000_000_000 + u64::from(i) * 997)
}

fn company() -> Directory {
    let mut d = Directory::empty(Node::new("bench", "bench.example"));
    d.node.country = Some(Country::RU);
    let regions: Vec<Region> = Region::all().filter(|r| r.code().starts_with("RU-")).collect();
    d.trunks.push(Trunk::new("carrier", "sip:127.0.0.1"));
    for i in 0..100 {
        let mut ours = Number::new(number(74_950_000_000 + i), "carrier");
        ours.region = regions.get(i as usize % regions.len()).copied();
        ours.campaign = Some(format!("campaign {}", i % 10).into());
        d.numbers.push(ours);
    }
    let mut week = Week::default();
    week.add([true, true, true, true, true, false, false], Span { from: 540, until: 1080 });
    d.calendars.push(Calendar::new("office", week));
    let zones = ["Europe/Kaliningrad", "Europe/Moscow", "Asia/Yekaterinburg", "Asia/Novosibirsk", "Asia/Vladivostok"];
    for i in 0..BRANCHES {
        let extension = format!("{}", 100 + i);
        let mut person = Extension::new(&extension, "Person", "a password of the bench");
        person.branch = Some(format!("branch {i}").into());
        d.extensions.push(person);
        d.branches.push(Branch {
            name: format!("branch {i}").into(),
            number: None,
            region: regions.get(i).copied(),
            zone: calendar::zone(zones[i % zones.len()]).expect("a zone of the bundle"),
            calendar: Some("office".into()),
            caller_id: None,
            to: vec![Step::to(Target::Extension(extension.into()))],
        });
    }
    // Nine kinds of conditions that do not hold for the call, then the route that does.
    for i in 0..ROUTES - 1 {
        let mut when = When::default();
        let label = |what: &str| vec![Label::from(format!("{what} {i}"))];
        match i % 9 {
            0..=3 => when.number = vec![number(74_950_000_001 + i as u64 % 99)],
            4 => when.campaign = label("campaign of none"),
            5 => when.category = label("category"),
            6 => when.caller = vec![format!("+49{i}*").parse().expect("a pattern")],
            7 => when.tag = label("tag"),
            _ => (when.calendar, when.is) = (Some("office".into()), vec![Hours::Holiday]),
        }
        let to = vec![Step::to(Target::Extension("100".into()))];
        d.routes.push(Route { name: format!("route {i}").into(), when, to, record: None });
    }
    let when = When { category: vec!["regular".into()], ..When::default() };
    let to = vec![Step::to(Target::Manager), Step::to(Target::OpenBranch)];
    d.routes.push(Route { name: "taken".into(), when, to, record: None });

    let names = ["Новосибирская обл.", "Свердловская обл.", "г. Москва", "Краснодарский край"];
    let spelled = names.map(|name| spelling::read(name).expect("a region"));
    let mut draft = Draft::built_in();
    for i in 0..RANGES {
        let first = 79_000_000_000 + i * 2_500;
        draft.add(number(first), number(first + 2_499), &spelled[i as usize % spelled.len()]).expect("a range");
    }
    d.numbering = Arc::new(Numbering::of(draft.finish()));

    let mut builder = contacts::Builder::default();
    for i in 0..CONTACTS {
        let new = NewContact {
            id: ContactId(i),
            changed: Wall::from_micros(i64::from(i)),
            numbers: &[customer(i)],
            name: "A customer",
            category: ["regular", "supplier", "partner"][i as usize % 3],
            manager: &format!("{}", 100 + i as usize % BRANCHES),
            region: "",
            dealer: "",
            tags: &["bulk"],
            url: "",
        };
        builder.push(&new).expect("there is room");
    }
    d.contacts = Arc::new(builder.build());
    d.indexed()
}

/// Nanoseconds (best of 20 rounds over many callers) and allocations of one decision.
fn figure<T>(name: &str, asks: &[Ask], mut f: impl FnMut(&Ask) -> T) {
    drop(black_box(f(&asks[0])));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(black_box(f(&asks[0])));
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            for ask in asks {
                black_box(f(ask));
            }
            start.elapsed().as_nanos() as f64 / asks.len() as f64
        })
        .fold(f64::INFINITY, f64::min);
    println!("plan: {name:<44} {best:>8.0} ns {allocations:>5} allocations");
}

fn main() {
    let directory = company();
    // Wednesday 2026-11-25 14:05 in Yekaterinburg.
    let at = Wall::from_micros(1_795_597_500_000_000);
    let trunk: Label = "carrier".into();
    let asks: Vec<Ask> = (0..10_000)
        .map(|i| Ask::In {
            trunk: trunk.clone(),
            number: number(74_950_000_000),
            caller: Some(customer(i * 99 / 3 * 3)),
            anonymous: false,
        })
        .collect();
    let taken = plan(&asks[0], &directory, at);
    assert_eq!(taken.route.as_deref(), Some("taken"), "the last route holds");
    let decide = |ask: &Ask| plan(ask, &directory, at);
    let ring = |ask: &Ask| {
        let mut plan = plan(ask, &directory, at);
        let moment = Moment { ask, directory: &directory, live: &Free, at, tried: &[], spent: &[], rung: &[] };
        let forks: Vec<_> = plan.stages.iter().map(|stage| fork(stage, &moment, &mut plan.why)).collect();
        (plan, forks)
    };
    let place = |ask: &Ask| match ask {
        Ask::In { caller: Some(caller), .. } => directory.numbering.place(*caller).regions.len(),
        Ask::In { .. } | Ask::Dialled { .. } | Ask::Operator { .. } => 0,
    };
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    let mut group = criterion.benchmark_group("plan");
    let mut next = asks.iter().cycle();
    group.bench_function("plan", |b| b.iter(|| decide(next.next().expect("it goes round"))));
    group.bench_function("plan and its two forks", |b| b.iter(|| ring(next.next().expect("it goes round"))));
    group.bench_function("place of a number", |b| b.iter(|| place(next.next().expect("it goes round"))));
    group.finish();
    criterion.final_summary();
    figure("plan", &asks, decide);
    figure("plan and forks (manager, branch:open)", &asks, ring);
    figure("place of a number", &asks, place);
    println!("plan: {} ranges of numbers in {} bytes", directory.numbering.len(), directory.numbering.bytes());
}
