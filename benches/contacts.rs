//! What a decision costs that looks into big lists: nanoseconds a lookup among 1,000,000 contacts, bytes a contact, and by how much
//! a swap of a million contacts delays the answers of a server that runs meanwhile.
//!
//! `cargo bench --bench contacts` prints Criterion's figures, then one line per figure. `--test` is a smoke with a hundredth of it.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use mimalloc::MiMalloc;
use strowger::base::Wall;
use strowger::directory::contacts::{Builder, ContactId, Contacts, NewContact};
use strowger::directory::{E164, Node, Number, Route, Target, Trunk};
use strowger::io::clock::Clock;
use strowger::io::config::Config;
use strowger::io::import::What;
use strowger::io::import::imported::Imported;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const CONTACTS: u64 = 1_000_000;
/// Calls a second while contacts are swapped.
const RATE: u32 = 200;
/// Swaps that are measured.
const SWAPS: u32 = 3;

const NAMES: [&str; 5] = ["Иванов Иван", "ООО «Ромашка»", "Петрова Анна", "ИП Кузнецов", "Смирнов Олег"];
const CATEGORIES: [&str; 4] = ["regular", "supplier", "partner", "hosting"];

/// The `n`th number; they lie as those of mobile phones do.
fn number(n: u64) -> E164 {
    E164::from_digits(&(79_000_000_000 + n * 997).to_string()).expect("a number")
}

/// Contacts as a company has them: one in five has two numbers.
fn contacts(count: u64, mut take: impl FnMut(&NewContact<'_>)) {
    for n in 0..count {
        let numbers = [number(n), number(n + count)];
        let name = format!("{} {n}", NAMES[n as usize % NAMES.len()]);
        let url = format!("https://crm.example.com/contacts/detail/{n}");
        take(&NewContact {
            id: ContactId(n as u32 + 1),
            changed: Wall::from_micros(n as i64),
            numbers: &numbers[..if n % 5 == 0 { 2 } else { 1 }],
            name: &name,
            category: CATEGORIES[n as usize % CATEGORIES.len()],
            manager: if n % 3 == 0 { "121" } else { "" },
            region: "RU-NVS",
            dealer: "",
            tags: &[],
            url: &url,
        });
    }
}

fn index(count: u64) -> Contacts {
    let mut builder = Builder::default();
    contacts(count, |new| builder.push(new).expect("there is room"));
    builder.build()
}

fn lookup(c: &mut Criterion, count: u64) {
    let begun = Instant::now();
    let contacts = index(count);
    let built = begun.elapsed();
    // In no order that a cache could like.
    let mut n = 0;
    let mut next = move || {
        n = (n + 777_767_777) % count;
        number(n)
    };
    let mut group = c.benchmark_group("contacts");
    group.bench_function("best, with name and category", |b| {
        b.iter_batched(
            &mut next,
            |number| contacts.best(number).map(|c| (c.name().map(str::len), c.category().map(str::len))),
            criterion::BatchSize::SmallInput,
        );
    });
    group.bench_function("nobody", |b| {
        let nobody: E164 = "+4420712345678".parse().expect("a number");
        b.iter(|| black_box(&contacts).best(black_box(nobody)).is_none());
    });
    group.finish();
    println!();
    let numbers: Vec<E164> = (0..count.min(200_000)).map(|_| next()).collect();
    let begun = Instant::now();
    for number in &numbers {
        let contact = contacts.best(*number).expect("everybody is in it");
        black_box((contact.name(), contact.category()));
    }
    println!("contacts: best      {:>8.1} ns", begun.elapsed().as_nanos() as f64 / numbers.len() as f64);
    println!("contacts: memory    {:>8.1} bytes a contact", contacts.bytes() as f64 / contacts.len() as f64);
    println!("contacts: build     {:>8.0} ms", built.as_secs_f64() * 1e3);
}

/// A carrier calls a number of ours and is refused; how long each answer took.
fn swap(count: u64) {
    let folder = std::env::temp_dir().join(format!("strowger-contacts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("strowger.toml");
    let carrier = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    carrier.set_read_timeout(Some(Duration::from_secs(5))).expect("it can be set");
    let text = "schema = 1\n[node]\ndata_dir = \".\"\n[[listen]]\nbind = \"127.0.0.1:1\"\n[media]\nrelay = \"never\"\n";
    let mut config = Config::parse(&file, text).unwrap_or_else(|report| panic!("{}", report.render(false)));
    let mut directory = Arc::unwrap_or_clone(config.directory);
    directory.node = Node::new("lab", "lab.example");
    directory.listen[0].bind.set_port(0);
    let mut trunk = Trunk::new("carrier", &format!("sip:{}", carrier.local_addr().expect("it is bound")));
    trunk.allow_from.clear();
    directory.trunks = vec![trunk];
    directory.numbers = vec![Number::new("+73833000001".parse().expect("a number"), "carrier")];
    directory.routes = vec![Route::new("all", Target::Reject(486))];
    config.directory = Arc::new(directory.indexed());
    store(&config.files.imported, count);
    let running = strowger::io::start(config, Clock::new()).expect("it starts");
    let server = running.addresses()[0].bound;
    let quiet = load(&carrier, server, || std::thread::sleep(Duration::from_secs(3)));
    let handle = running.handle().clone();
    let mut took = Duration::ZERO;
    let busy = load(&carrier, server, || {
        for _ in 0..SWAPS {
            let begun = Instant::now();
            handle.import().expect("it can be read");
            took += begun.elapsed();
        }
    });
    println!("swap: read and swapped in {:>6.0} ms", (took / SWAPS).as_secs_f64() * 1e3);
    for (name, mut delays) in [("without", quiet), ("meanwhile", busy)] {
        delays.sort();
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let at = |share: f64| ms(delays[((delays.len() - 1) as f64 * share) as usize]);
        let (calls, p50, p99, max) = (delays.len(), at(0.5), at(0.99), at(1.0));
        println!("swap: answer {name:<10} p50 {p50:.2} ms, p99 {p99:.2} ms, longest {max:.2} ms of {calls} calls");
    }
    running.stop();
    std::fs::remove_dir_all(&folder).ok();
}

fn store(path: &Path, count: u64) {
    let database = Imported::open(path).expect("it opens");
    let mut room = String::new();
    contacts(count, |new| database.put_contact(new, &mut room).expect("it is taken"));
    database.commit(What::Contacts, Wall::default(), count).expect("it is taken");
}

/// Calls at [`RATE`] until `work` is done; from INVITE to the first answer each.
fn load(carrier: &UdpSocket, server: SocketAddr, work: impl FnOnce() + Send) -> Vec<Duration> {
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let calling = threads.spawn(|| {
            let (begun, mut delays, mut buffer) = (Instant::now(), Vec::new(), [0; 65_536]);
            while !done.load(Ordering::Relaxed) {
                let n = delays.len() as u32;
                let due = begun + Duration::from_secs(1) * n / RATE;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let id = format!("{}-{n}", begun.elapsed().as_nanos());
                let head = |method: &str, to: &str| {
                    format!(
                        "{method} sip:+73833000001@lab.example SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK{id}\r\n\
                         Max-Forwards: 70\r\nFrom: <sip:+7900{n:07}@carrier>;tag={id}\r\nTo: <sip:+73833000001@lab.example>{to}\r\n\
                         Call-ID: {id}\r\nCSeq: 1 {method}\r\nContact: <sip:{at}>\r\nContent-Length: 0\r\n\r\n",
                        at = carrier.local_addr().expect("it is bound"),
                    )
                };
                let sent = Instant::now();
                carrier.send_to(head("INVITE", "").as_bytes(), server).expect("loopback takes it");
                let (mut first, mut over) = (None, false);
                while !over {
                    let got = carrier.recv(&mut buffer).expect("an answer");
                    let text = String::from_utf8_lossy(&buffer[..got]);
                    if !text.starts_with("SIP/2.0") || !text.contains(&id) {
                        continue; // OPTIONS, or an answer to a call before
                    }
                    first.get_or_insert_with(|| sent.elapsed());
                    over = !text.starts_with("SIP/2.0 1");
                    if over {
                        let tag = text.split("\r\n").find_map(|l| l.strip_prefix("To:")?.split_once(";tag=")).unwrap_or(("", ""));
                        carrier.send_to(head("ACK", &format!(";tag={}", tag.1)).as_bytes(), server).expect("loopback takes it");
                    }
                }
                delays.extend(first);
            }
            delays
        });
        work();
        done.store(true, Ordering::Relaxed);
        calling.join().expect("it does not panic")
    })
}

fn main() {
    let count = if std::env::args().any(|a| a == "--test") { CONTACTS / 100 } else { CONTACTS };
    let mut c = Criterion::default().configure_from_args();
    lookup(&mut c, count);
    c.final_summary();
    swap(count);
}
