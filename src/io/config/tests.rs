//! Configurations good and bad: each broken one with the code, the line and the hint that its author gets.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::directory::calendar::Hours;

/// A small company that is right; the broken ones are made from it. 44 lines.
const GOOD: &str = r#"schema = 1
[node]
name = "n1"
[[listen]]
bind = "127.0.0.1:5060"
[media]
ports = "20000-20999"
[[trunk]]
name = "carrier"
uri = ["sip:192.0.2.1:5060"]
username = "office"
password = "given"
[[number]]
e164 = "+73433000001"
trunk = "carrier"
[[branch]]
name = "ekb"
region = "RU-SVE"
[[calendar]]
name = "office"
hours = ["mon-fri 09:00-18:00"]
[[extension]]
number = "121"
password = "secret-of-121"
branch = "ekb"
groups = ["sales"]
[[extension]]
number = "122"
password = "secret-of-122"
[[queue]]
name = "support"
agents = ["group:sales"]
[[route]]
name = "vip"
when = { caller = "+7913*" }
to = ["extension:121", "reject:486"]
[[route]]
name = "rest"
to = ["queue:support"]
[dial]
intercom = "*80"
pickup = "*55"
[dial.in_call]
record = "*1"
"#;

/// A day on which no production calendar is missing but those that are.
const TODAY: Date = Date::constant(2026, 10, 31);

/// What is wrong with a text: code, line, help of each.
fn wrong(text: &str) -> Vec<(&'static str, usize, String)> {
    let report = match Config::parse(Path::new("test.toml"), text) {
        Ok(config) => config.report,
        Err(report) => report,
    };
    report.problems.iter().map(|p| (p.code, report.line(p).unwrap_or(0), p.help.clone())).collect()
}

#[test]
fn the_good_one_is_good() {
    assert_eq!(wrong(GOOD), []);
}

#[test]
fn every_mistake_has_its_code_line_and_hint() {
    // (line to replace, by what, code, line that is pointed at, part of the hint)
    #[rustfmt::skip]
    let table: &[(usize, &str, &str, usize, &str)] = &[
        (1, "schema = 2", "config::schema", 1, "`schema = 1`"),
        (1, "", "config::missing_key", 1, "schema = 1"),
        (3, "nmae = \"n1\"", "config::unknown_key", 3, "did you mean `name`?"),
        (3, "name = n1", "config::syntax", 3, "did you mean `name = \"n1\"`?"),
        (3, "name = \"n1", "config::syntax", 3, "TOML"),
        (10, "uri = \"sip:x\"\nregister = no # none", "config::syntax", 11, "did you mean `register = false`?"),
        (3, "name = \"n1\"\nname = \"n2\"", "config::duplicate_key", 4, "remove one"),
        (3, "timezone = \"Asia/Ekaterinburg\"", "config::bad_zone", 3, "did you mean `Asia/Yekaterinburg`?"),
        (3, "ring = \"20s\"", "config::unknown_key", 3, "is a key of [queue"),
        (3, "ladder = \"64\"", "config::bad_size", 3, "64MiB"),
        (3, "country = \"Russia\"", "config::bad_region", 3, "\"RU\""),
        (3, "digest = [\"sha256\"]", "config::bad_choice", 3, "did you mean `sha-256`?"),
        (5, "bind = \"127.0.0.1\"", "config::bad_address", 5, "did you mean `127.0.0.1:5060`?"),
        (5, "bind = 5060", "config::wrong_type", 5, "quotes"),
        (5, "bind = \"127.0.0.1:5060\"\ntransport = \"tls\"", "config::not_yet", 6, "udp and tcp"),
        (5, "bind = \"127.0.0.1:5060\"\n[[listen]]\nbind = \"127.0.0.1:5060\"", "config::duplicate_listen", 7, "remove"),
        (5, "bind = \"127.0.0.1:20500\"", "config::bad_ports", 7, "move the range"),
        (24, "password = \"secret121\"", "config::weak_password", 24, "not loopback; make long ones: `openssl"),
        (7, "ports = \"20000-20002\"", "config::bad_ports", 7, "a call needs 4"),
        (7, "ports = \"20999-20000\"", "config::bad_ports", 7, "did you mean `20000-20999`?"),
        (7, "timeout = \"60\"", "config::bad_duration", 7, "did you mean `60s`?"),
        (7, "timeout = \"soon\"", "config::bad_duration", 7, "\"30s\""),
        (7, "timeout = 60", "config::wrong_type", 7, "timeout = \"60s\""),
        (7, "relay = true", "config::wrong_type", 7, "quotes"),
        (8, "[store]\nurl = \"postgres://db\"\n[[trunk]]", "config::not_yet", 9, "sqlite:"),
        (9, "max_calls = 5", "config::missing_key", 8, "name = "),
        (10, "uri = \"192.0.2.1\"", "config::bad_uri", 10, "did you mean `sip:192.0.2.1`?"),
        (10, "uri = \"sip:me@192.0.2.1\"", "config::bad_uri", 10, "belongs into `username`"),
        (10, "uri = \"sip:192.0.2.1;transport=tls\"", "config::not_yet", 10, "udp or tcp"),
        (10, "uri = \"sip:x\"\nallow_from = \"192.0.2.0/33\"", "config::bad_cidr", 11, "`192.0.2.0/24`"),
        (10, "uri = \"sip:x\"\nallow_from = \"carrier.example\"", "config::bad_cidr", 11, "not names"),
        (10, "uri = \"sip:x\"\nallow_from = \"192.0.2.1\"\n[[trunk]]\nname = \"b\"\nuri = \"sip:y\"\nallow_from = [\"192.0.2.0/24\"]", "config::shared_address", 15, "owns the number called"),
        (10, "uri = \"sip:x\"\nregister = \"yes\"", "config::wrong_type", 11, "`register = true`"),
        (10, "uri = \"sip:x\"\nmax_calls = \"5\"", "config::wrong_type", 11, "`max_calls = 5`"),
        (10, "uri = \"sip:x\"\nmax_calls = -1", "config::bad_value", 11, "0 to 100000"),
        (11, "", "config::missing_key", 12, "username"),
        (12, "password = { fil = \"x\" }", "config::secret", 12, "{ file = "),
        (12, "password = { file = \"/nonexistent/secret\" }", "config::secret", 12, "first line"),
        (12, "password = { env = \"STROWGER_NO_SUCH_VARIABLE\" }", "config::secret", 12, "set STROWGER_NO_SUCH"),
        (12, "password = \"\"", "config::secret", 12, "empty secret"),
        (14, "e164 = \"83433000001\"", "config::bad_number", 14, "did you mean `+73433000001`?"),
        (15, "", "config::missing_key", 13, "trunk = "),
        (15, "trunk = \"carier\"", "config::unknown_name", 15, "did you mean `carrier`?"),
        (15, "trunk = \"carrier\"\n[[number]]\ne164 = \"+73433000001\"\ntrunk = \"carrier\"", "config::duplicate_number", 17, "another"),
        (18, "region = \"RU-SVEE\"", "config::bad_region", 18, "did you mean `RU-SVE`?"),
        (18, "region = \"Свердловская обл.\"", "config::bad_region", 18, "did you mean `RU-SVE`?"),
        (18, "region = \"KZ-ALA\"", "config::bad_region", 18, "did you mean `KZ`?"),
        (18, "to = \"branch:ekb\"", "config::cycle", 18, "opening hours"),
        (21, "hours = [\"mon-fry 09:00-18:00\"]", "config::bad_hours", 21, "mon-fri"),
        (21, "hours = []\nholidays = [\"nowhere/*.json\"]", "config::no_match", 22, "looked in"),
        (21, "hours = [\"mon 09:00-09:00\"]", "config::bad_hours", 21, "fri 22:00-06:00"),
        (21, "hours = []\nexcept = [{ date = \"2026-12-31\", until = \"2026-12-30\", hours = [] }]", "config::bad_date", 22, "later day"),
        (21, "hours = []\nexcept = [{ date = \"2026-12-31\", hours = [\"fri 10:00-12:00\"] }]", "config::bad_hours", 22, "hours alone"),
        (21, "hours = []\nexcept = [{ date = \"2026-12-31\", hours = [\"10-12\"] }]", "config::bad_hours", 22, "did you mean `10:00-12:00`?"),
        (21, "hours = []\nholidays = [\"Cargo.toml\"]", "config::bad_calendar", 22, "xmlcalendar.ru"),
        (23, "number = 121", "config::wrong_type", 23, "`number = \"121\"`"),
        (23, "number = \"122\"", "config::duplicate_number", 28, "another"),
        (23, "number = \"112\"", "config::hides_emergency", 23, "another number"),
        (24, "password = { env = \"X\", default = \"y\", file = \"z\" }", "config::secret", 24, "{ file = "),
        (25, "branch = \"ekb1\"", "config::unknown_name", 25, "did you mean `ekb`?"),
        (26, "groups = \"sales\"", "config::wrong_type", 26, "square brackets: [\"sales\"]"),
        (31, "name = \"121\"", "config::duplicate_number", 31, "another"),
        (32, "agents = [\"group:sale\"]", "config::unknown_target", 32, "did you mean `sales`?"),
        (32, "agents = [\"group:sales@nsk\"]", "config::unknown_target", 32, "known are: ekb"),
        (32, "agents = []", "config::no_agents", 32, "group:sales"),
        (32, "agents = [\"queue:support\"]", "config::wrong_target", 32, "only extension:"),
        (32, "agents = [\"extension:121\"]\noverflow = [\"queue:support\"]", "config::cycle", 33, "opening hours"),
        (32, "agents = [\"extension:121\"]\nring = \"0s\"", "config::bad_duration", 33, "20s"),
        (35, "when = { caler = \"+7913*\" }", "config::unknown_key", 35, "did you mean `caller`?"),
        (35, "when = { calendar = \"office\" }", "config::missing_key", 35, "is = [\"closed\""),
        (35, "when = { number = \"+73433000002\" }", "config::unknown_name", 35, "did you mean `+73433000001`?"),
        (35, "", "config::unreachable_route", 38, "put \"vip\" last"),
        (36, "to = [\"reject:486\", \"extension:121\"]", "config::unreachable_step", 36, "put `reject:486` last"),
        (36, "to = [\"extension:121\", \"extension:121\"]", "config::unreachable_step", 36, "tried once"),
        (36, "to = [\"extention:121\"]", "config::bad_target", 36, "did you mean `extension`?"),
        (36, "to = [\"extension:123\"]", "config::unknown_target", 36, "did you mean `12"),
        (36, "to = [\"queue:121\"]", "config::unknown_target", 36, "extension called `121`"),
        (36, "to = [\"support\"]", "config::bad_target", 36, "did you mean `queue:support`?"),
        (36, "to = [\"number:8 913 123-45-67\"]", "config::bad_target", 36, "did you mean `number:+79131234567`?"),
        (36, "to = [\"reject:200\"]", "config::bad_target", 36, "400 to 699"),
        (36, "to = [{ target = \"extension:121\", rign = \"5s\" }]", "config::unknown_key", 36, "did you mean `ring`?"),
        (36, "to = []", "config::no_steps", 36, "reject:480"),
        (36, "to = [\"number:+73433000001\"]", "config::own_number", 36, "route it inside"),
        (38, "name = \"rest\"\nwhen = { category = \"regular\" }", "config::no_last_route", 38, "no `when`"),
        (38, "name = \"rest\"\nwhen = { calendar = \"office\", is = [\"open\", \"closed\"] }", "config::no_last_route", 38, "no `when`"),
        (43, "emergency = []\n[dial.in_call]", "config::no_emergency", 43, "\"112\""),
        (36, "to = [\"number:+78091234567\"]", "config::forbidden_number", 36, "without +7809"),
        (32, "agents = [\"number:+8816123456\"]", "config::forbidden_number", 32, "without +881"),
        (29, "password = \"secret-of-122\"\nmobile = { number = \"+9791234567\" }", "config::forbidden_number", 30, "another"),
        (41, "forbidden = \"7809\"", "config::bad_number", 41, "+7809"),
        (41, "forbidden = [\"+7809*\"]", "config::bad_number", 41, "did you mean `+7809`?"),
        (41, "intercom = \"12\"", "config::overlapping_dial", 41, "begin codes with *"),
        (41, "outside = \"12X\"", "config::overlapping_dial", 41, "narrower"),
        (41, "outside = \"8-XXX\"", "config::bad_pattern", 41, "did you mean `8XXX`?"),
        (41, "outside = \"8?XX\"", "config::bad_pattern", 41, "X for any digit"),
        (41, "intercom = \"*55\"", "config::duplicate_code", 42, "another code"),
        (41, "park = \"120-129\"", "config::overlapping_dial", 41, "move"),
        (44, "record = \"*1\"\npark = \"*12\"", "config::duplicate_code", 45, "beginning of another"),
        (44, "dial = \"*1\"", "config::unknown_key", 44, "known are"),
    ];
    let mut failed = String::new();
    for (line, by, code, at, hint) in table {
        let lines = GOOD.lines().enumerate().map(|(i, l)| if i + 1 == *line { *by } else { l });
        let text: String = lines.map(|l| format!("{l}\n")).collect();
        let found = wrong(&text);
        if !found.iter().any(|(c, l, h)| c == code && l == at && h.contains(hint)) {
            let _ = writeln!(failed, "{line} {by:?}\n  wanted {code} line {at} {hint:?}\n  found {found:?}");
        }
    }
    assert!(failed.is_empty(), "\n{failed}");
}

#[test]
fn routes_that_take_every_caller_together_are_enough() {
    for when in [
        "when = { calendar = \"office\", is = [\"closed\", \"holiday\"] }\nto = \"extension:122\"\n[[route]]\nname = \"open\"\n\
         when = { calendar = \"office\", is = \"open\" }",
        "when = { anonymous = true }\nto = \"extension:122\"\n[[route]]\nname = \"shown\"\nwhen = { anonymous = false }",
        "when = { number = \"+73433000001\" }",
        "when = { trunk = \"carrier\" }",
    ] {
        assert_eq!(wrong(&GOOD.replace("name = \"rest\"\n", &format!("name = \"rest\"\n{when}\n"))), [], "{when}");
    }
    let (before, after) = GOOD.split_once("[[route]]").expect("two routes");
    let (_, dial) = after.split_once("[dial]").expect("behind them");
    let found = wrong(&format!("{before}[dial]{dial}"));
    assert_eq!(found.iter().map(|w| (w.0, w.1)).collect::<Vec<_>>(), [("config::no_last_route", 13)]);
}

#[test]
fn what_is_forbidden_is_what_the_file_says() {
    let forbidden = |text: &str| {
        let config = Config::parse(Path::new("x.toml"), text).unwrap_or_else(|r| panic!("{}", r.render(false)));
        config.directory.dial.forbidden.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(forbidden(GOOD), crate::directory::FORBIDDEN, "the schema's default is the directory's");
    let with = |line: &str| GOOD.replace("[dial]\n", &format!("[dial]\n{line}\n"));
    assert_eq!(forbidden(&with("forbidden = []")), [""; 0]);
    let own = with("forbidden = [\"+7900\"]").replace("\"reject:486\"", "\"number:+78091234567\"");
    assert_eq!(forbidden(&own), ["+7900"], "then 8-809 may be called");
    assert_eq!(wrong(&own), []);
}

#[test]
fn one_mistake_makes_one_error() {
    for (right, slip) in [
        ("name = \"n1\"", "nmae = \"n1\""),
        ("[[queue]]", "[[queue]"),
        ("agents = [\"group:sales\"]", "agents = [\"group:sales\""),
        ("agents = [\"group:sales\"]", "agents = \"group:sales]"),
        ("when = { caller = \"+7913*\" }", "when = { caller = \"+7913*\""),
        ("trunk = \"carrier\"", "trunk: \"carrier\""),
        ("[dial]", "[dail]"),
    ] {
        let found = wrong(&GOOD.replacen(right, slip, 1));
        assert_eq!(found.len(), 1, "{slip}: {found:#?}");
    }
}

#[test]
fn what_refers_to_a_name_with_a_mistake_is_right() {
    let text = GOOD
        .replace("name = \"rest\"\n", "name = \"rest\"\nwhen = { number = \"+73433000001\", trunk = \"carrier\" }\n");
    let text = text.replace("ports = ", "# ports = ");
    assert_eq!(wrong(&text), []);
    for (right, slip, hint) in [
        ("e164 = \"+73433000001\"", "e164 = \"8 343 300-00-01\"", "did you mean `+73433000001`?"),
        ("e164 = \"+73433000001\"", "e164 = +73433000001", "`e164 = \"+73433000001\"`"),
        ("e164 = \"+73433000001\"", "e164 = \"+7343300000\"", "write + and"),
        ("number = \"121\"", "number = 121", "`number = \"121\"`"),
        ("number = \"121\"", "number = \"12 1\"", "did you mean `121`?"),
        ("number = \"121\"", "nubmer = \"121\"", "did you mean `number`?"),
        ("number = \"121\"\n", "", "add `number = "),
        ("[[queue]]", "[[queu]]", "did you mean `queue`?"),
        ("name = \"support\"", "name = \" support\"", "did you mean `support`?"),
        ("name = \"carrier\"", "nmae = \"carrier\"", "did you mean `name`?"),
        ("[[listen]]", "[[lisen]]", "did you mean `listen`?"),
    ] {
        let found = wrong(&text.replacen(right, slip, 1));
        assert!(matches!(&found[..], [(_, _, help)] if help.contains(hint)), "{slip}: {found:#?}");
    }
    // What is meant by nothing that is there is still told, and no mistake is recommended.
    let found = wrong(
        &text.replace("e164 = \"+73433000001\"", "e164 = \"+7343300000\"").replace("queue:support", "queue:suport"),
    );
    assert_eq!(
        found.iter().map(|f| f.0).collect::<Vec<_>>(),
        ["config::bad_number", "config::unknown_target"],
        "{found:#?}"
    );
}

#[test]
fn short_passwords_are_told_once_and_refused_where_others_can_reach_us() {
    let short = GOOD.replace("secret-of-121", "secret121").replace("secret-of-122", "122");
    let report = |text: &str| Config::parse(Path::new("test.toml"), text);
    let config = report(&short).expect("nobody else can reach it");
    let told: Vec<String> = config.report.lines().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("weak_password") && told[0].contains("121 (and of 122)"), "{told:?}");
    let refused = report(&short.replace("127.0.0.1:5060", "192.0.2.1:5060")).expect_err("others can");
    let told: Vec<(&str, Option<usize>)> = refused.problems.iter().map(|p| (p.code, refused.line(p))).collect();
    assert_eq!(told, [("config::weak_password", Some(24)), ("config::weak_password", Some(29))]);
}

#[test]
fn what_only_shows_here_is_told_by_check() {
    let dir = std::env::temp_dir().join(format!("strowger-here-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("file"), "").expect("a file");
    let path = dir.join("strowger.toml");
    let look = |text: &str| {
        std::fs::write(&path, text).expect("written");
        let report = Config::check(&path).map_or_else(|report| report, |config| config.report);
        report.problems.iter().map(|p| (p.code, report.line(p).unwrap_or(0), p.help.clone())).collect::<Vec<_>>()
    };
    let text = GOOD.replace("[node]\n", "[node]\ndata_dir = \"data\"\n");
    assert_eq!(look(&text), []);
    assert!(!dir.join("data").exists(), "it only looks");
    let media = text.replace("[media]\n", "[media]\nbind = \"192.0.2.77\"\n");
    assert!(matches!(&look(&media)[..], [("config::not_here", 8, help)] if help.contains("ip addr")));
    let recording = format!("{text}[recording]\nmode = \"all\"\ndir = \"file/recordings\"\n");
    assert!(matches!(&look(&recording)[..], [("config::folder", 48, help)] if help.contains("`dir`")));
    assert_eq!(look(&recording.replace("\"all\"", "\"none\"")), [], "nothing is recorded");
    // Categories of what was imported.
    let when = text.replace("{ caller = \"+7913*\" }", "{ category = [\"Supplier\", \"suplier\", \"unknown\"] }");
    assert_eq!(look(&when), [], "nothing was imported");
    std::fs::write(dir.join("c.csv"), "number,category\n+79130000001,supplier\n").expect("written");
    let config = Config::load(&path).expect("valid");
    let mut rejects = crate::io::import::rejects::Rejects::to(&dir.join("rejects.csv"));
    let job = crate::io::import::Job {
        files: &[dir.join("c.csv")],
        dry_run: false,
        directory: &config.directory,
        database: &config.files.imported,
        shown: 0,
        now: crate::base::Wall::default(),
        rejects: &mut rejects,
        progress: &(),
    };
    let mut job = job;
    crate::io::import::What::Contacts.import(&mut job).expect("imported");
    assert!(matches!(&look(&when)[..], [("config::no_category", 36, help)] if help == "did you mean `supplier`?"));
    let folder = Config::check(&dir).expect_err("a folder").render(false);
    assert!(folder.contains("this is a folder") && folder.contains("strowger.toml?"), "{folder}");
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn defaults_of_secrets_count_on_loopback_only() {
    let text =
        GOOD.replace("\"secret-of-122\"", "{ env = \"STROWGER_NO_SUCH_VARIABLE\", default = \"long-enough-for-all\" }");
    assert_eq!(wrong(&text), []);
    let open =
        text.replace("\"secret-of-121\"", "\"long-enough-for-all\"").replace("127.0.0.1:5060", "192.0.2.10:5060");
    assert_eq!(wrong(&open).iter().map(|w| (w.0, w.1)).collect::<Vec<_>>(), [("config::default_secret", 29)]);
    let http = text.replace("\"secret-of-121\"", "\"long-enough-for-all\"") + "[http]\nbind = \"0.0.0.0:80\"\n";
    assert_eq!(wrong(&http).iter().map(|w| (w.0, w.1)).collect::<Vec<_>>(), [("config::default_secret", 29)]);
    let set = |name: &str| (name == "STROWGER_NO_SUCH_VARIABLE").then(|| "long-enough-too".to_owned());
    let set = read(vec![(PathBuf::new(), open)], &set, TODAY, false);
    let config = set.expect("a variable that is set counts everywhere");
    assert_eq!(&*config.directory.extension("122").expect("122").password.0, "long-enough-too");
}

#[test]
fn several_files_are_one() {
    let main = "schema = 1\n[[listen]]\nbind = \"127.0.0.1:5060\"\n[node]\nname = \"a\"\n";
    let more = "[[extension]]\nnumber = \"121\"\npassword = \"x\"\n[node]\ncountry = \"KZ\"\n";
    let texts = |more: &str| {
        vec![(PathBuf::from("a.toml"), main.to_owned()), (PathBuf::from("conf.d/b.toml"), more.to_owned())]
    };
    let config = read(texts(more), &|_| None, TODAY, false).expect("one configuration");
    assert_eq!(
        (config.directory.extensions.len(), config.directory.node.country, &*config.directory.node.name),
        (1, Some(crate::directory::Country::KZ), "a")
    );
    let report = read(texts("[node]\nname = \"b\"\n"), &|_| None, TODAY, false).expect_err("a name that stands twice");
    assert_eq!(
        report.lines().collect::<Vec<_>>(),
        ["conf.d/b.toml:2: config::duplicate_key: `name` stands in two files"]
    );
}

#[test]
fn files_in_conf_d_are_read_in_order_each_with_its_own_folder() {
    let dir = std::env::temp_dir().join(format!("strowger-conf-d-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("conf.d")).expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
    write("strowger.toml", "schema = 1\n[[listen]]\nbind = \"127.0.0.1:5060\"\n[node]\ndata_dir = \"data\"\n");
    write("conf.d/20.toml", "[[extension]]\nnumber = \"122\"\npassword = { file = \"122.password\" }\n");
    write("conf.d/10.toml", "[[extension]]\nnumber = \"121\"\npassword = \"x\"\n");
    write("conf.d/122.password", "of the folder\nand not this\n");
    write("122.password", "of the folder above");
    write("conf.d/30.toml.bak", "no = \"TOML of ours\"");
    let config = Config::load(&dir.join("strowger.toml")).unwrap_or_else(|r| panic!("{}", r.render(false)));
    std::fs::remove_dir_all(&dir).expect("removed");
    let extensions = config.directory.extensions.iter().map(|e| (&*e.number, &*e.password.0)).collect::<Vec<_>>();
    assert_eq!(extensions, [("121", "x"), ("122", "of the folder")]);
    assert_eq!(config.data_dir, dir.join("data"));
}

#[test]
fn secrets_come_from_files_credentials_and_the_environment() {
    let dir = std::env::temp_dir().join(format!("strowger-secrets-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    std::fs::write(dir.join("phone"), "the-first-line-counts\nnot this\n").expect("written");
    let set = |name: &str| match name {
        "CREDENTIALS_DIRECTORY" => Some(dir.display().to_string()),
        "SET" => Some("a-variable-that-is-set".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let given = |number: &str, secret: &str, bind: &str| {
        let text = GOOD.replace("127.0.0.1", bind).replace("\"secret-of-122\"", "\"long-enough-for-all\"");
        let text =
            text.replace("number = \"121\"", &format!("number = \"{number}\"")).replace("\"secret-of-121\"", secret);
        let text = text.replace("extension:121", &format!("extension:{number}"));
        match read(vec![(dir.join("test.toml"), text)], &set, TODAY, false) {
            Ok(config) => Ok(config.directory.extension(number).expect("it is there").password.0.to_string()),
            Err(report) => Err(report.problems.iter().map(|p| p.code).collect::<Vec<_>>().join(" ")),
        }
    };
    let (here, open) = ("127.0.0.1", "0.0.0.0");
    for (number, secret, bind, want) in [
        ("121", "\"short\"", here, Ok("short")),
        ("121", "\"short\"", open, Err("config::weak_password")),
        ("121", "\"elevenchars\"", open, Err("config::weak_password")),
        ("121", "\"twelve-chars\"", open, Ok("twelve-chars")),
        ("121000000000", "\"121000000000\"", open, Err("config::weak_password")),
        ("121000000000", "\"121000000000\"", here, Ok("121000000000")),
        ("121", "{ file = \"phone\" }", open, Ok("the-first-line-counts")),
        ("121", "{ file = \"nowhere\" }", here, Err("config::secret")),
        ("121", "{ credential = \"phone\" }", open, Ok("the-first-line-counts")),
        ("121", "{ credential = \"../phone\" }", here, Err("config::secret")),
        ("121", "{ env = \"SET\", default = \"a-known-default\" }", open, Ok("a-variable-that-is-set")),
        ("121", "{ env = \"UNSET\", default = \"a-known-default\" }", here, Ok("a-known-default")),
        ("121", "{ env = \"UNSET\", default = \"a-known-default\" }", open, Err("config::default_secret")),
        ("121", "{ env = \"EMPTY\", default = \"a-known-default\" }", open, Err("config::default_secret")),
        ("121", "{ env = \"UNSET\" }", here, Err("config::secret")),
    ] {
        let want = want.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(given(number, secret, bind), want, "{number} {secret} {bind}");
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn what_is_not_said_is_as_the_contract_has_it() {
    use crate::directory::{Class, NumberFormat};
    let text = GOOD.to_owned() + "[[hook]]\nname = \"crm\"\nurl = \"http://127.0.0.1:1/\"\n";
    let config = Config::parse(Path::new("test.toml"), &text).unwrap_or_else(|r| panic!("{}", r.render(false)));
    let d = &config.directory;
    let extension = d.extension("121").expect("an extension");
    assert_eq!((extension.outbound, extension.max_calls), (Class::National, 2));
    let trunk = d.trunk("carrier").expect("a trunk");
    assert_eq!((trunk.number_format, trunk.max_calls), (NumberFormat::E164, 0));
    assert!(trunk.trust_identity && !trunk.foreign_numbers);
    let queue = d.queue("support").expect("a queue");
    assert_eq!((queue.ring, queue.wrap_up), (Duration::from_secs(20), Duration::ZERO));
    assert_eq!(d.hook("crm").expect("a hook").timeout, Duration::from_millis(300));
    assert!(d.numbers.iter().all(|n| n.show));
}

#[test]
fn a_circle_that_opening_hours_may_open_and_a_glob_without_a_match_are_no_errors() {
    let office = "[[branch]]\nname = \"ekb\"\nregion = \"RU-SVE\"\n";
    let circle = |calendar: &str| {
        let to = format!("{office}to = \"queue:support\"\n{calendar}");
        let text = GOOD.replace(office, &to);
        text.replace("agents = [\"group:sales\"]", "agents = [\"group:sales\"]\noverflow = \"branch:ekb\"")
    };
    assert_eq!(wrong(&circle("")).iter().map(|w| w.0).collect::<Vec<_>>(), ["config::cycle"]);
    assert_eq!(wrong(&circle("calendar = \"office\"\n")), []);
    let text = GOOD.to_owned() + "[numbering]\nfiles = [\"nowhere/*.csv\"]\n";
    let config = Config::parse(Path::new("test.toml"), &text).expect("only a warning");
    let told: Vec<_> = config.report.problems.iter().map(|p| (p.code, p.severity)).collect();
    assert_eq!(told, [("config::no_match", Severity::Warning)]);
}

#[test]
fn a_page_with_talkback_says_who_cannot_talk_back() {
    let page = |mode: &str| {
        let members =
            "members = [\"extension:121\", \"multicast:239.255.70.0:10000\", \"polycom:224.0.1.116:5001/25\"]";
        format!(
            "{GOOD}[[page]]\nnumber = \"700\"\nname = \"Shop\"\nallow = [\"extension:121\"]\n{members}\nmode = \"{mode}\"\n"
        )
    };
    for (mode, want) in [("one-way", 0), ("talkback", 2)] {
        let config = Config::parse(Path::new("test.toml"), &page(mode)).expect("only warnings");
        let told: Vec<_> = config.report.problems.iter().map(|p| (p.code, p.severity)).collect();
        assert_eq!(told, vec![("config::one_way", Severity::Warning); want], "{mode}");
        assert_eq!(config.directory.pages[0].talkback, mode == "talkback");
    }
}

#[test]
fn the_office_is_accepted_as_it_stands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/office.toml");
    let config = Config::load(&path).unwrap_or_else(|r| panic!("{}", r.render(false)));
    let directory = &config.directory;
    assert_eq!(directory.queue("sales").map(|q| q.agents.iter().map(|a| &**a).collect()), Some(vec!["121", "122"]));
    assert_eq!((directory.extensions.len(), directory.numbers.len(), directory.routes.len()), (9, 5, 6));
    assert_eq!(config.data_dir, path.with_file_name("data"));
    let want = [
        "office.toml:32: [http]: checked, but the HTTP API and the console are not there yet",
        "office.toml:290: dial `forward_on` (*72): not known yet",
        "office.toml:291: dial `forward_off` (*73): not known yet",
        "office.toml:292: dial `dnd_on` (*78): not known yet",
        "office.toml:293: dial `dnd_off` (*79): not known yet",
        "office.toml:294: dial `pause` (*65): not known yet",
        "office.toml:295: dial `pickup` (*55): not known yet",
        "office.toml:296: dial `listen` (*90): not known yet",
        "office.toml:297: dial `park` (751-759): not known yet",
        "office.toml:300: [dial.in_call]: checked, but keys pass through to the other side",
    ];
    assert_eq!(directory.not_yet, want);
}

#[test]
fn calendars_of_the_office() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/office.toml");
    let read = |today| {
        let text = std::fs::read_to_string(&path).expect("the fixture");
        read(vec![(path.clone(), text)], &|_| None, today, false).unwrap_or_else(|r| panic!("{}", r.render(false)))
    };
    let years = |config: &Config| {
        let lines = config.report.lines().filter(|l| l.contains("config::no_year"));
        lines.map(|l| l.replace(&path.display().to_string(), "office.toml")).collect::<Vec<_>>()
    };
    let config = read(TODAY);
    assert_eq!(years(&config), [""; 0]);
    let office = config.directory.calendar("office").expect("the calendar");
    for (branch, utc, hours, because) in [
        ("ekb", "2026-11-25T15:30:00Z", Hours::Closed, "Wed 20:30 in Asia/Yekaterinburg: after hours (09:00-18:00)"),
        ("nsk", "2026-11-25T15:30:00Z", Hours::Closed, "Wed 22:30 in Asia/Novosibirsk: after hours (09:00-18:00)"),
        ("kgd", "2026-11-25T15:30:00Z", Hours::Open, "Wed 17:30 in Europe/Kaliningrad: open (09:00-18:00)"),
        ("ekb", "2026-11-03T12:30:00Z", Hours::Closed, "after hours (09:00-17:00, shortened day)"),
        ("ekb", "2026-11-04T06:00:00Z", Hours::Holiday, "2026-11-04 is a day off in the production calendar"),
        (
            "ekb",
            "2027-11-04T06:00:00Z",
            Hours::Open,
            "Thu 11:00 in Asia/Yekaterinburg: open (09:00-18:00); no production calendar of 2027 is known",
        ),
        ("ekb", "2026-12-31T06:00:00Z", Hours::Holiday, "closed on 2026-12-31 by an exception of the calendar"),
    ] {
        let zone = &config.directory.branch(branch).expect("the branch").zone;
        let (got, why) = office.at(utc.to_owned().try_into().expect("a stamp"), zone);
        assert_eq!(got, hours, "{branch} {utc}: {why}");
        assert!(why.contains(because), "{branch} {utc}: {why}");
    }
    // From 1 November next year's production calendar is missed.
    let late = read(Date::constant(2026, 11, 1));
    assert_eq!(
        years(&late),
        ["office.toml:113: config::no_year: calendar \"office\" has no production calendar for 2027"]
    );
}

#[test]
fn a_report_looks_like_this() {
    let text = GOOD.replace("queue:support", "queue:suport").replace("ports = ", "port = ");
    let report = Config::parse(Path::new("strowger.toml"), &text).expect_err("two mistakes");
    assert_eq!(report.to_string(), "2 errors");
    let want = r#"config::unknown_key

  x [media] has no key `port`
   ,-[strowger.toml:7:1]
 6 | [media]
 7 | port = "20000-20999"
   : ^^|^
   :   `-- unknown key
 8 | [[trunk]]
   `----
  help: did you mean `ports`?

config::unknown_target

  x there is no queue `suport`
    ,-[strowger.toml:39:14]
 38 | name = "rest"
 39 | to = ["queue:suport"]
    :              ^^^|^^
    :                 `-- no such queue
 40 | [dial]
    `----
  help: did you mean `support`?

"#;
    assert_eq!(report.render(false), want);
}

proptest! {
    #[test]
    fn no_mutation_of_the_office_panics(cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..12), 1..6)) {
        const PIECES: [&str; 12] = ["", "\"", "[", "]]", "=", "{", "é", "\u{0}", "0", "\n[[route]]\n", "\"queue:sales\"", "'''"];
        let mut text = include_str!("../../../fixtures/office.toml").to_owned();
        for (at, len, piece) in cuts {
            let mut start = at.index(text.len());
            while !text.is_char_boundary(start) { start -= 1; }
            let mut end = (start + len.index(24)).min(text.len());
            while !text.is_char_boundary(end) { end += 1; }
            text.replace_range(start..end, PIECES[piece]);
        }
        if let Err(report) = Config::parse(Path::new("office.toml"), &text) {
            prop_assert!(!report.problems.is_empty());
            let _ = report.render(false);
        }
    }

    #[test]
    fn no_text_panics(text in "[a-z\\[\\]={}\"'\n.#0-9 é]{0,200}") {
        if let Err(report) = Config::parse(Path::new("x.toml"), &text) {
            let _ = report.render(true);
        }
    }
}

#[test]
fn sounds_are_read_with_the_file_and_replace_ours() {
    let dir = std::env::temp_dir().join(format!("strowger-sounds-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("own")).expect("a folder");
    let wav = |name: &str, frames: usize| {
        let format = hound::WavSpec {
            channels: 1,
            sample_rate: 8000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut file = hound::WavWriter::create(dir.join(name), format).expect("a file");
        (0..frames * 160).for_each(|_| file.write_sample(100i16).expect("written"));
        file.finalize().expect("closed");
    };
    wav("closed.wav", 3);
    wav("own/press-1.wav", 2);
    wav("own/closed.wav", 4);
    std::fs::write(dir.join("song.wav"), b"no song").expect("written");
    let read = |more: &str, to: &str| {
        let text = GOOD.replace("to = [\"queue:support\"]", &format!("to = {to}"));
        Config::parse(&dir.join("x.toml"), &format!("{text}{more}"))
    };
    let frames = |config: &Config, name: &str| config.sounds.get(name).map(|s| s.frames());
    let config = read("", "[\"queue:support\", \"play:closed.wav\"]").expect("valid");
    assert_eq!((frames(&config, "closed.wav"), config.report.problems.len()), (Some(3), 0));
    let config = read("[sounds]\ndir = \"own\"\n", "[\"queue:support\", \"play:closed.wav\"]").expect("valid");
    assert_eq!((frames(&config, "closed.wav"), frames(&config, "press-1")), (Some(4), Some(2)));
    let config = read("", "[\"play:closed.wav\", \"queue:support\"]").expect("valid");
    let codes: Vec<&str> = config.report.problems.iter().map(|p| p.code).collect();
    assert_eq!(codes, ["config::prompt_first"]);
    for file in ["song.wav", "gone.wav", "own"] {
        let report = read("", &format!("[\"queue:support\", \"play:{file}\"]")).expect_err("cannot be played");
        let codes: Vec<&str> = report.problems.iter().map(|p| p.code).collect();
        assert_eq!(codes, ["config::sound"], "{file}");
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}
