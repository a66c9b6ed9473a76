//! The tables of `fixtures/policy/`: a company, its customers, and calls with what must become of them. They are written for
//! people who know telephones, not Rust; the first lines of each file say how.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;
use strowger::base::Wall;
use strowger::directory::contacts::{self, ContactId, NewContact};
use strowger::directory::{Directory, E164};
use strowger::io::config::Config;
use strowger::policy::explain::{Leg, Question, Way};
use strowger::policy::queue::Agent;
use strowger::policy::{Explained, Live, RING, Stage, explain, plan};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sheet {
    company: Option<PathBuf>,
    configuration: Option<String>,
    #[serde(default)]
    contact: Vec<Customer>,
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Customer {
    number: Vec<E164>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    category: String,
    #[serde(default)]
    manager: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    dealer: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    from: String,
    to: String,
    at: String,
    #[serde(default)]
    unregistered: Vec<String>,
    #[serde(default)]
    busy: Vec<String>,
    #[serde(default)]
    dnd: Vec<String>,
    #[serde(default)]
    paused: Vec<String>,
    #[serde(default)]
    down: Vec<String>,
    #[serde(default)]
    full: Vec<String>,
    route: Option<String>,
    steps: Vec<String>,
    say: Option<Vec<String>>,
    shown: Option<String>,
    trunk: Option<String>,
    last: Option<u16>,
    #[serde(default)]
    why: Vec<String>,
}

impl Live for Case {
    fn bindings(&self, extension: &str) -> usize {
        usize::from(!self.unregistered.iter().any(|e| e == extension))
    }
    fn calls(&self, extension: &str) -> u32 {
        // Enough to be busy for everybody.
        if self.busy.iter().any(|e| e == extension) { 1000 } else { 0 }
    }
    fn trunk_up(&self, trunk: &str) -> bool {
        !self.down.iter().any(|t| t == trunk)
    }
    fn trunk_calls(&self, trunk: &str) -> u32 {
        if self.full.iter().any(|t| t == trunk) { u32::MAX } else { 0 }
    }
    fn agent(&self, extension: &str) -> Agent {
        let is = |list: &[String]| list.iter().any(|e| e == extension);
        Agent { do_not_disturb: is(&self.dnd), paused: is(&self.paused), ..Agent::default() }
    }
}

#[test]
fn calls_go_where_the_tables_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policy");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "toml"));
    files.sort();
    let (mut failed, mut cases) = (String::new(), 0);
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a readable file");
        let sheet: Sheet = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let directory = company(&folder, &sheet);
        for case in &sheet.case {
            cases += 1;
            let wrong = play(case, &directory);
            if !wrong.is_empty() {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let _ = writeln!(failed, "{name}: {}\n{wrong}", case.name);
            }
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
    assert!(cases >= 20, "only {cases} cases in {}", folder.display());
}

fn company(folder: &Path, sheet: &Sheet) -> Directory {
    let config = match (&sheet.company, &sheet.configuration) {
        (Some(file), None) => Config::load(&folder.join(file)),
        (None, Some(text)) => Config::parse(&folder.join("inline.toml"), text),
        _ => panic!("a table names either its `company` or its `configuration`"),
    };
    let config = config.unwrap_or_else(|report| panic!("{}", report.render(false)));
    let mut directory = Directory::clone(&config.directory);
    let mut builder = contacts::Builder::default();
    for (i, c) in sheet.contact.iter().enumerate() {
        let tags: Vec<&str> = c.tags.iter().map(String::as_str).collect();
        let row = NewContact {
            id: ContactId(i as u32),
            changed: Wall::from_micros(i as i64),
            numbers: &c.number,
            name: &c.name,
            category: &c.category,
            manager: &c.manager,
            region: &c.region,
            dealer: &c.dealer,
            tags: &tags,
            url: "",
        };
        builder.push(&row).expect("a few contacts fit");
    }
    directory.contacts = Arc::new(builder.build());
    directory
}

fn play(case: &Case, directory: &Directory) -> String {
    let at: jiff::Zoned = case.at.parse().unwrap_or_else(|e| panic!("{}: at {}: {e}", case.name, case.at));
    let at = Wall::from_micros(at.timestamp().as_microsecond());
    let way = if directory.extension(&case.from).is_some() { Way::Outbound } else { Way::Inbound };
    let question = Question { way, from: case.from.clone(), to: case.to.clone(), at: None };
    let ask = question.ask(directory).unwrap_or_else(|why| panic!("{}: {why}", case.name));
    let told = explain(&ask, directory, case, at);
    let mut wrong = String::new();
    let mut compare = |what: &str, want: &dyn std::fmt::Debug, found: &dyn std::fmt::Debug| {
        let (want, found) = (format!("{want:?}"), format!("{found:?}"));
        if want != found {
            let _ = writeln!(wrong, "  {what}: wanted {want}\n  {what}: found  {found}");
        }
    };
    let found: Vec<String> = told.steps.iter().map(step).collect();
    compare("steps", &case.steps, &found);
    if let Some(say) = &case.say {
        let stages = plan(&ask, directory, at).stages;
        compare("say", say, &stages.iter().map(said).collect::<Vec<_>>());
    }
    if case.route.is_some() {
        compare("route", &case.route.as_deref(), &told.route.as_deref());
    }
    if case.shown.is_some() {
        compare("shown", &case.shown, &told.shown.map(|n| n.to_string()));
    }
    if case.trunk.is_some() {
        compare("trunk", &case.trunk.as_deref(), &told.trunk.as_deref());
    }
    if case.last.is_some() {
        compare("last", &case.last, &Some(told.last));
    }
    for words in &case.why {
        if !trail(&told).contains(words.as_str()) {
            let _ = writeln!(wrong, "  why: no `{words}` in\n{}", trail(&told));
        }
    }
    wrong
}

fn step(step: &strowger::policy::explain::Step) -> String {
    let leg = |leg: &Leg| {
        let who = leg.target.split_once(':').map_or(leg.target.as_str(), |(_, who)| who);
        match &leg.trunk {
            Some(trunk) => format!("{who} by {trunk}"),
            None => who.to_owned(),
        }
    };
    // Trunks that would be tried instead are another matter.
    let legs: Vec<String> = step.legs.iter().filter(|l| !l.instead).map(leg).collect();
    let to = match (legs.is_empty(), step.refused) {
        (_, Some(status)) => status.to_string(),
        (true, None) => "nobody".to_owned(),
        (false, None) => legs.join(", "),
    };
    format!("{} -> {to}", step.target)
}

/// What a step says besides where it goes.
fn said(stage: &Stage) -> String {
    let seconds = |word: &str, time: std::time::Duration| format!(", {word} {} s", time.as_secs());
    let mut said = stage.target.to_string();
    said += &if stage.ring == RING { String::new() } else { seconds("rings", stage.ring) };
    said += &if stage.after.is_zero() { String::new() } else { seconds("after", stage.after) };
    said += &stage.caller_name.as_ref().map(|name| format!(", named {name}")).unwrap_or_default();
    said += match stage.confirm {
        Some(true) => ", confirmed",
        Some(false) => ", not confirmed",
        None => "",
    };
    said += match stage.record {
        Some(true) => ", recorded",
        Some(false) => ", not recorded",
        None => "",
    };
    said
}

fn trail(told: &Explained) -> String {
    told.trail().map(|why| format!("    {}: {}\n", why.rule, why.because)).collect()
}

/// What the README shows of `explain` is what it says.
#[test]
fn the_readme_explains_as_the_program_does() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("it is there");
    let blocks = readme.split("```").skip(1).step_by(2).filter(|block| block.contains("$ strowger explain "));
    let mut asked = 0;
    for example in blocks.flat_map(|block| block.split("$ strowger ").skip(1)) {
        let (command, shown) = example.split_once('\n').expect("an answer");
        let words = command.split_whitespace().map(|word| word.trim_matches('"'));
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_strowger"))
            .args(words)
            .arg("--config")
            .arg(root.join("fixtures/office.toml"))
            .output()
            .expect("the program");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), shown.trim(), "{command}");
        asked += 1;
    }
    assert_eq!(asked, 3);
}

/// Names that the random companies use.
const TARGETS: [&str; 22] = [
    "extension:10",
    "extension:11",
    "extension:12",
    "queue:q0",
    "queue:q1",
    "group:g0",
    "group:g1@b1",
    "manager",
    "branch:b0",
    "branch:b1",
    "branch:b2",
    "branch:open",
    "dealer:d0",
    "dealer:d1",
    "dealer:nearest",
    "duty:y0",
    "duty:y1",
    "number:+79120000777",
    "number:+442071234567",
    "reject:486",
    "extension:13",
    "group:g0@b0",
];

/// A list of steps of those places in [`TARGETS`]; none twice, and nothing behind a refusal, which `check` would not have.
fn list(places: &[usize]) -> String {
    let mut words: Vec<String> = Vec::new();
    for place in places {
        let word = format!("\"{}\"", TARGETS[*place]);
        let ends = word.contains("reject");
        if !words.contains(&word) {
            words.push(word);
        }
        if ends {
            break;
        }
    }
    format!("[{}]", words.join(", "))
}

prop_compose! {
    fn steps()(places in prop::collection::vec(0..TARGETS.len(), 1..5)) -> String {
        list(&places)
    }
}

prop_compose! {
    /// Any company, as its operator might write it.
    fn companies()(
        branches in prop::collection::vec((steps(), any::<bool>()), 3),
        dealers in prop::collection::vec((steps(), any::<bool>(), any::<bool>()), 2),
        duties in prop::collection::vec((steps(), steps()), 2),
        overflow in prop::collection::vec(steps(), 2),
        routes in prop::collection::vec((0usize..9, steps()), 1..5),
        foreign in any::<bool>(),
        shown in any::<bool>(),
    ) -> String {
        let mut text = String::from(
            "schema = 1\n[node]\nname = \"n\"\ntimezone = \"Asia/Yekaterinburg\"\n[[listen]]\nbind = \"127.0.0.1:5060\"\n\
             [caller_id]\ndefault = \"+73433000001\"\n[[calendar]]\nname = \"c\"\nhours = [\"mon-fri 09:00-18:00\"]\n\
             [[number]]\ne164 = \"+73433000001\"\ntrunk = \"t0\"\nbranch = \"b0\"\n\
             [[number]]\ne164 = \"+73833000001\"\ntrunk = \"t1\"\nregion = \"RU-NVS\"\ncampaign = \"x\"\n",
        );
        let _ = write!(text, "show = {shown}\n[[trunk]]\nname = \"t0\"\nuri = \"sip:127.0.0.1:5090\"\n");
        let _ = write!(text, "[[trunk]]\nname = \"t1\"\nuri = \"sip:127.0.0.1:5091\"\nforeign_numbers = {foreign}\n");
        for (i, number) in ["10", "11", "12", "13"].into_iter().enumerate() {
            let _ = write!(
                text,
                "[[extension]]\nnumber = \"{number}\"\npassword = \"p{number}\"\nbranch = \"b{}\"\ngroups = [\"g{}\"]\n",
                i % 2,
                i % 2
            );
        }
        for (i, (to, hours)) in branches.iter().enumerate() {
            let zone = ["Asia/Yekaterinburg", "Asia/Novosibirsk", "Europe/Kaliningrad"][i];
            let region = ["RU-SVE", "RU-NVS", "RU-KGD"][i];
            let _ = write!(text, "[[branch]]\nname = \"b{i}\"\nregion = \"{region}\"\ntimezone = \"{zone}\"\nto = {to}\n");
            text.push_str(if *hours { "calendar = \"c\"\n" } else { "" });
        }
        for (i, (to, hours, below)) in dealers.iter().enumerate() {
            let _ = write!(text, "[[dealer]]\nname = \"d{i}\"\nregions = [\"RU-KEM\", \"RU-NVS\"]\nto = {to}\n");
            text.push_str(if *hours { "hours = [\"mon-fri 08:00-20:00\"]\n" } else { "" });
            let _ = if *below { writeln!(text, "dealers = [\"d{}\"]", 1 - i) } else { Ok(()) };
        }
        for (i, (turn, otherwise)) in duties.iter().enumerate() {
            let _ = write!(
                text,
                "[[duty]]\nname = \"y{i}\"\notherwise = {otherwise}\n\
                 roster = [{{ from = \"2026-11-25T00:00\", until = \"2026-11-26T00:00\", to = {turn} }}]\n"
            );
        }
        for (i, to) in overflow.iter().enumerate() {
            let _ = write!(text, "[[queue]]\nname = \"q{i}\"\nagents = [\"group:g{i}\"]\noverflow = {to}\n");
        }
        for (i, (when, to)) in routes.iter().enumerate() {
            let when = [
                "",
                "number = \"+73833000001\"",
                "campaign = \"x\"",
                "category = [\"regular\", \"unknown\"]",
                "caller = \"+7383*\"",
                "anonymous = true",
                "region = \"RU-NVS\"",
                "calendar = \"c\", is = [\"closed\", \"holiday\"]",
                "tag = \"vip\"",
            ][*when];
            let _ = write!(text, "[[route]]\nname = \"r{i}\"\nwhen = {{ {when} }}\nto = {to}\n");
        }
        text
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever `check` accepts: every call comes to an end, nobody is passed over in silence, no number is shown where it
    /// must not be.
    #[test]
    fn no_company_leaves_a_caller_in_silence(
        text in companies(),
        hour in 0i64..400,
        away in prop::collection::vec(any::<bool>(), 4),
        down in prop::collection::vec(any::<bool>(), 2),
    ) {
        let Ok(config) = Config::parse(Path::new("random.toml"), &text) else { return Ok(()) };
        let directory = &config.directory;
        let gone = |names: &[&str], flags: &[bool]| {
            names.iter().zip(flags).filter(|(_, gone)| **gone).map(|(n, _)| (*n).to_owned()).collect::<Vec<String>>()
        };
        let live = Office { away: gone(&["10", "11", "12", "13"], &away), down: gone(&["t0", "t1"], &down) };
        let at = Wall::from_micros((1_795_500_000 + hour * 3600) * 1_000_000);
        for (way, from, to) in [
            (Way::Inbound, "+73832000000", "+73433000001"),
            (Way::Inbound, "+73842000000", "+73833000001"),
            (Way::Inbound, "anonymous", "+73833000001"),
            (Way::Outbound, "10", "+73833000001"),
            (Way::Outbound, "11", "b1"),
            (Way::Outbound, "12", "d0"),
            (Way::Outbound, "13", "89131234567"),
        ] {
            let question = Question { way, from: from.to_owned(), to: to.to_owned(), at: None };
            let ask = question.ask(directory).expect("they are all there");
            let told = explain(&ask, directory, &live, at);
            prop_assert!(!told.decided.is_empty(), "no word of why\n{text}");
            prop_assert!(told.last >= 400, "{}\n{text}", told.last);
            for step in &told.steps {
                prop_assert!(!step.legs.is_empty() || !step.why.is_empty(), "{} passed over in silence\n{text}", step.target);
                prop_assert!(step.legs.len() <= 64 * 4, "{} legs\n{text}", step.legs.len());
                for leg in &step.legs {
                    let Some((trunk, shown)) = leg.trunk.as_deref().zip(leg.shown) else { continue };
                    let number = directory.number(shown);
                    let trunk = directory.trunk(trunk).expect("a trunk of ours");
                    let may = number.is_some_and(|n| n.show && (n.trunk == trunk.name || trunk.foreign_numbers));
                    // A forwarded call may show the customer's own.
                    let may = may || (trunk.foreign_numbers && shown.to_string() == from);
                    prop_assert!(may, "{shown} shown on {}\n{text}", trunk.name);
                }
            }
        }
    }
}

#[derive(Debug)]
struct Office {
    away: Vec<String>,
    down: Vec<String>,
}

impl Live for Office {
    fn bindings(&self, extension: &str) -> usize {
        usize::from(!self.away.iter().any(|e| e == extension))
    }
    fn calls(&self, _: &str) -> u32 {
        0
    }
    fn trunk_up(&self, trunk: &str) -> bool {
        !self.down.iter().any(|t| t == trunk)
    }
    fn trunk_calls(&self, _: &str) -> u32 {
        0
    }
}
