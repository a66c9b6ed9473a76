//! Every key that a configuration may hold: name, type, default, meaning, and whether it is in force yet. The one table that
//! the check, the defaults, `check --defaults` and the "not yet" list are made from. To add a key, add a line here.

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// How it stands in the file: `trunk`, `http.token`.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// The key that tells its instances apart, if there may be several.
    pub identity: Option<&'static str>,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// Name.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Whether it must stand there.
    pub need: Need,
    /// Its meaning in one line.
    pub about: &'static str,
    /// What happens with it as long as it is not in force; none where it is.
    pub later: Option<&'static str>,
}

/// Whether a key must stand there. The texts are TOML.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// It must; an example.
    Required(&'static str),
    /// It need not; what is taken then.
    Default(&'static str),
    /// It need not; an example.
    Optional(&'static str),
}

/// What may stand behind a key.
#[derive(Debug)]
pub enum Kind {
    /// Words for people.
    Words,
    /// A name to refer to.
    Name,
    /// An extension's number and SIP user.
    Extension,
    /// `true` or `false`.
    Bool,
    /// A whole number between two, both allowed.
    Int(i64, i64),
    /// `"30s"`.
    Duration,
    /// `"1GiB"`.
    Size,
    /// IANA zone.
    Zone,
    /// ISO 3166-1.
    Country,
    /// ISO 3166-2.
    Region,
    /// E.164.
    E164,
    /// Caller in `when`.
    Caller,
    /// IP address and port.
    Address,
    /// IP address.
    Ip,
    /// Block of addresses.
    Cidr,
    /// Host name.
    Host,
    /// URI of a trunk.
    SipUri,
    /// Name of a header.
    Header,
    /// URL.
    Url,
    /// Where the store is.
    StoreUrl,
    /// `2026-12-31`.
    Date,
    /// `2026-12-31T09:00`.
    Instant,
    /// `mon-fri 09:00-18:00`.
    Hours,
    /// `10:00-14:00`, or as `Hours`.
    HoursOfADay,
    /// `20000-29999`.
    Ports,
    /// `751-759`.
    Park,
    /// Pattern of outside numbers.
    Pattern,
    /// How numbers begin.
    Prefix,
    /// What is dialled.
    Code,
    /// File or folder.
    Path,
    /// Files.
    Glob,
    /// A password.
    Secret,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The name of one of those.
    Ref(Named),
    /// One target.
    Target(Targets),
    /// Steps: a target, a table with a target, or a list of these.
    Steps,
    /// A list of these.
    List(&'static Kind),
    /// One of these or a list of them.
    Some(&'static Kind),
    /// A table.
    Table(&'static Section),
    /// Tables, `[[so]]` or a list of inline ones.
    Tables(&'static Section),
}

/// What has names that others refer to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Named {
    /// `[[trunk]]`.
    Trunk,
    /// `[[number]]`.
    Number,
    /// `[[extension]]`.
    Extension,
    /// A word in some extension's `groups`.
    Group,
    /// `[[queue]]`.
    Queue,
    /// `[[branch]]`.
    Branch,
    /// `[[calendar]]`.
    Calendar,
    /// `[[duty]]`.
    Duty,
    /// `[[dealer]]`.
    Dealer,
    /// `[[hook]]`.
    Hook,
    /// `[[page]]`.
    Page,
    /// `[[pool]]`.
    Pool,
}

impl Named {
    /// The section or word, as the operator knows it.
    pub fn word(self) -> &'static str {
        match self {
            Named::Trunk => "trunk",
            Named::Number => "number",
            Named::Extension => "extension",
            Named::Group => "group",
            Named::Queue => "queue",
            Named::Branch => "branch",
            Named::Calendar => "calendar",
            Named::Duty => "duty",
            Named::Dealer => "dealer",
            Named::Hook => "hook",
            Named::Page => "page",
            Named::Pool => "pool",
        }
    }
}

/// Which targets may stand at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Targets {
    /// Wherever a call may go.
    Step,
    /// Who answers a queue.
    Agent,
    /// Who hears a page.
    Member,
    /// Who may do something.
    People,
}

const fn required(name: &'static str, kind: Kind, example: &'static str, about: &'static str) -> Key {
    Key { name, kind, need: Need::Required(example), about, later: None }
}

const fn optional(name: &'static str, kind: Kind, example: &'static str, about: &'static str) -> Key {
    Key { name, kind, need: Need::Optional(example), about, later: None }
}

const fn default(name: &'static str, kind: Kind, value: &'static str, about: &'static str) -> Key {
    Key { name, kind, need: Need::Default(value), about, later: None }
}

impl Key {
    const fn later(mut self, what: &'static str) -> Key {
        self.later = Some(what);
        self
    }
}

/// The whole file.
pub static ROOT: Section = Section {
    name: "",
    about: "the file",
    identity: None,
    keys: &[
        required("schema", Kind::Int(1, 1), "1", "version of this format"),
        optional("node", Kind::Table(&NODE), "", "this server"),
        optional("listen", Kind::Tables(&LISTEN), "", "where SIP is received"),
        optional("media", Kind::Table(&MEDIA), "", "voice and video"),
        optional("store", Kind::Table(&STORE), "", "where call records and registrations are kept"),
        optional("http", Kind::Table(&HTTP), "", "the HTTP API and console")
            .later("checked, but the HTTP API and the console are not there yet"),
        optional("recording", Kind::Table(&RECORDING), "", "recording of calls"),
        optional("sounds", Kind::Table(&SOUNDS), "", "what is played to callers"),
        optional("numbering", Kind::Table(&NUMBERING), "", "which number belongs to which region"),
        optional("outcome", Kind::Table(&OUTCOME), "", "how an unanswered call is classed"),
        optional("caller_id", Kind::Table(&CALLER_ID), "", "which number of ours is shown on outgoing calls"),
        optional("trunk", Kind::Tables(&TRUNK), "", "carriers"),
        optional("number", Kind::Tables(&NUMBER), "", "numbers of ours"),
        optional("calendar", Kind::Tables(&CALENDAR), "", "opening hours and holidays"),
        optional("branch", Kind::Tables(&BRANCH), "", "offices"),
        optional("extension", Kind::Tables(&EXTENSION), "", "phones and people"),
        optional("queue", Kind::Tables(&QUEUE), "", "queues of callers"),
        optional("duty", Kind::Tables(&DUTY), "", "who answers outside hours"),
        optional("dealer", Kind::Tables(&DEALER), "", "partners who take calls of their regions"),
        optional("hook", Kind::Tables(&HOOK), "", "programs of yours that decide where a call goes"),
        optional("webhook", Kind::Tables(&WEBHOOK), "", "programs of yours that are told what happens")
            .later("checked, but nothing is sent yet"),
        optional("pool", Kind::Tables(&POOL), "", "numbers lent to visitors of a web site")
            .later("checked, but no numbers are lent yet"),
        optional("route", Kind::Tables(&ROUTE), "", "where a customer's call goes: the first whose `when` holds"),
        optional("page", Kind::Tables(&PAGE), "", "announcements over many phones"),
        optional("dial", Kind::Table(&DIAL), "", "what phones dial"),
    ],
};

static NODE: Section = Section {
    name: "node",
    about: "This server.",
    identity: None,
    keys: &[
        default("name", Kind::Name, "\"strowger\"", "its name in logs and records"),
        default(
            "domains",
            Kind::List(&Kind::Host),
            "[]",
            "domains that are ours, the first is the digest realm; none: the node's name",
        ),
        default(
            "digest",
            Kind::List(&Kind::Choice(&["md5", "sha-256"])),
            "[\"md5\", \"sha-256\"]",
            "challenges in this order; many phones read only the first",
        ),
        default("country", Kind::Country, "\"RU\"", "numbers dialled in national form belong to its plan"),
        default("timezone", Kind::Zone, "\"UTC\"", "zone of what has none of its own"),
        default(
            "data_dir",
            Kind::Path,
            "\"/var/lib/strowger\"",
            "where the server keeps its files and its control socket",
        ),
        default(
            "ladder",
            Kind::Size,
            "\"64MiB\"",
            "memory for raw SIP messages, for `call ID --ladder` and `trace`; 0: none",
        ),
    ],
};

static LISTEN: Section = Section {
    name: "listen",
    about: "Where SIP is received; one for each transport and address.",
    identity: None,
    keys: &[
        default(
            "transport",
            Kind::Choice(&["udp", "tcp", "tls", "ws", "wss"]),
            "\"udp\"",
            "tls, ws and wss are not there yet",
        ),
        required("bind", Kind::Address, "\"127.0.0.1:5060\"", "address and port"),
        optional("advertise", Kind::Ip, "\"203.0.113.7\"", "public address for Via, Contact and SDP when behind NAT"),
    ],
};

static MEDIA: Section = Section {
    name: "media",
    about: "Voice and video.",
    identity: None,
    keys: &[
        optional("bind", Kind::Ip, "\"127.0.0.1\"", "address of the RTP ports; else that of the first `listen`"),
        optional(
            "advertise",
            Kind::Ip,
            "\"203.0.113.7\"",
            "address in SDP; else `advertise` of the first `listen`, else `bind`",
        ),
        default("ports", Kind::Ports, "\"20000-29999\"", "RTP and RTCP ports, two a stream and leg"),
        default(
            "relay",
            Kind::Choice(&["always", "never"]),
            "\"always\"",
            "never: SDP passes untouched, nothing is recorded",
        ),
        default(
            "timeout",
            Kind::Duration,
            "\"60s\"",
            "a leg that ought to send and does not for this long ends the call; 0: never",
        ),
    ],
};

static STORE: Section = Section {
    name: "store",
    about: "Where call records and registrations are kept.",
    identity: None,
    keys: &[optional("url", Kind::StoreUrl, "\"sqlite:strowger.db\"", "else sqlite:strowger.db in data_dir")],
};

static HTTP: Section = Section {
    name: "http",
    about: "The HTTP API and console.",
    identity: None,
    keys: &[
        required("bind", Kind::Address, "\"127.0.0.1:8080\"", "address and port"),
        default(
            "allow_hosts",
            Kind::List(&Kind::Host),
            "[]",
            "hosts that URLs from outside may point at although they are private",
        ),
        optional("token", Kind::Tables(&TOKEN), "", "who may use the API"),
    ],
};

static TOKEN: Section = Section {
    name: "http.token",
    about: "Who may use the API.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"crm\"", "its name in logs"),
        required("secret", Kind::Secret, "{ env = \"CRM_TOKEN\", default = \"change-me\" }", "the bearer token"),
        required(
            "scopes",
            Kind::List(&Kind::Choice(&[
                "read",
                "recordings",
                "call",
                "supervise",
                "contacts",
                "forward",
                "callbacks",
                "leases",
                "admin",
            ])),
            "[\"read\"]",
            "what it may do",
        ),
        optional("as", Kind::List(&Kind::Ref(Named::Extension)), "[\"121\"]", "extensions that it may call for"),
    ],
};

static RECORDING: Section = Section {
    name: "recording",
    about: "Recording of calls.",
    identity: None,
    keys: &[
        default(
            "mode",
            Kind::Choice(MODES),
            "\"none\"",
            "all, on-demand or none; a route, queue or extension may say otherwise",
        ),
        optional("dir", Kind::Path, "\"recordings\"", "folder of the WAV files; else recordings in data_dir"),
        optional("keep", Kind::Duration, "\"180d\"", "older files are deleted, their records stay; else kept for ever"),
    ],
};

const MODES: &[&str] = &["all", "on-demand", "none"];

static SOUNDS: Section = Section {
    name: "sounds",
    about: "What is played to callers. Files are WAV: 8000 or 16000 samples a second, PCM, A-law or µ-law.",
    identity: None,
    keys: &[
        optional(
            "dir",
            Kind::Path,
            "\"sounds\"",
            "where `play:` files are, else beside this file; press-1.wav, 0.wav to 9.wav, ringback.wav there replace ours",
        ),
        optional("language", Kind::Choice(&["en", "ru"]), "\"ru\"", "of our own prompts; else by the node's country"),
    ],
};

static NUMBERING: Section = Section {
    name: "numbering",
    about: "Which number belongs to which region.",
    identity: None,
    keys: &[default("files", Kind::List(&Kind::Glob), "[]", "the registry's own CSV files")],
};

static OUTCOME: Section = Section {
    name: "outcome",
    about: "How an unanswered call is classed.",
    identity: None,
    keys: &[default("short_ring", Kind::Duration, "\"8s\"", "the caller gave up before this: short")],
};

static CALLER_ID: Section = Section {
    name: "caller_id",
    about: "Which number of ours is shown on outgoing calls.",
    identity: None,
    keys: &[
        default(
            "order",
            Kind::List(&Kind::Choice(&["sticky", "city", "region", "district", "branch", "default"])),
            "[\"sticky\", \"city\", \"region\", \"district\", \"branch\", \"default\"]",
            "the first rule that gives a number whose trunk takes the call",
        ),
        default(
            "sticky",
            Kind::Duration,
            "\"90d\"",
            "the number that a customer called last is shown back for this long",
        ),
        optional("default", Kind::Ref(Named::Number), "\"+74950000001\"", "when no other rule gives one"),
    ],
};

static TRUNK: Section = Section {
    name: "trunk",
    about: "A carrier.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"carrier\"", "its name"),
        required("uri", Kind::Some(&Kind::SipUri), "[\"sip:192.0.2.1:5060\"]", "tried in order"),
        default(
            "allow_from",
            Kind::Some(&Kind::Cidr),
            "[]",
            "where its calls come from, besides the addresses in `uri`",
        ),
        optional("username", Kind::Words, "\"office\"", "digest user"),
        optional("password", Kind::Secret, "{ file = \"carrier.password\" }", "digest password"),
        default("register", Kind::Bool, "false", "whether we register there"),
        default("max_calls", Kind::Int(0, 100_000), "0", "calls at once; 0: no limit"),
        default(
            "number_format",
            Kind::Choice(&["e164", "international", "national"]),
            "\"e164\"",
            "how numbers are written towards it: e164 (+7…), international (7…), national (8…)",
        ),
        default(
            "caller_id",
            Kind::Choice(&["from", "p-asserted-identity", "remote-party-id"]),
            "\"from\"",
            "where the shown number stands",
        ),
        default("trust_identity", Kind::Bool, "true", "whether P-Asserted-Identity of its calls is believed"),
        optional(
            "did_header",
            Kind::Header,
            "\"X-Called-Number\"",
            "header with the number called, if neither request-URI nor To has it",
        ),
        default("foreign_numbers", Kind::Bool, "false", "whether numbers of other trunks may be shown on it"),
    ],
};

static NUMBER: Section = Section {
    name: "number",
    about: "A number of ours.",
    identity: Some("e164"),
    keys: &[
        required("e164", Kind::E164, "\"+74950000001\"", "the number"),
        required("trunk", Kind::Ref(Named::Trunk), "\"carrier\"", "the trunk that owns it"),
        optional("region", Kind::Region, "\"RU-MOW\"", "its region"),
        optional("branch", Kind::Ref(Named::Branch), "\"main\"", "its branch"),
        optional("label", Kind::Words, "\"Head office\"", "shown to people"),
        optional("campaign", Kind::Words, "\"site\"", "for records and routes"),
        optional("channel", Kind::Words, "\"organic\"", "for records"),
        default("brand", Kind::Bool, "false", "for records"),
        default("show", Kind::Bool, "true", "whether it may be shown as caller ID"),
        optional("pool", Kind::Ref(Named::Pool), "\"site\"", "lent to visitors of a web site").later("ignored"),
    ],
};

static CALENDAR: Section = Section {
    name: "calendar",
    about: "Opening hours and holidays.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"office\"", "its name"),
        required("hours", Kind::List(&Kind::Hours), "[\"mon-fri 09:00-18:00\"]", "weekly hours"),
        default("shortened", Kind::Duration, "\"0s\"", "a pre-holiday day ends this much earlier"),
        default("holidays", Kind::List(&Kind::Glob), "[]", "production calendars, a file a year"),
        optional("except", Kind::Tables(&EXCEPT), "", "days that are otherwise"),
    ],
};

static EXCEPT: Section = Section {
    name: "calendar.except",
    about: "A day that is otherwise.",
    identity: Some("date"),
    keys: &[
        required("date", Kind::Date, "\"2026-12-31\"", "the day"),
        optional("until", Kind::Date, "\"2027-01-10\"", "the last of several days; else the one day"),
        required("hours", Kind::List(&Kind::HoursOfADay), "[]", "its hours, whatever else is said; none: closed"),
    ],
};

static BRANCH: Section = Section {
    name: "branch",
    about: "An office.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"main\"", "its name, also a SIP user"),
        optional("number", Kind::Extension, "\"900\"", "what is dialled to reach it"),
        optional("region", Kind::Region, "\"RU-MOW\"", "its region"),
        optional("timezone", Kind::Zone, "\"Europe/Moscow\"", "its zone; else the node's"),
        optional("calendar", Kind::Ref(Named::Calendar), "\"office\"", "when it is open; else always"),
        optional(
            "caller_id",
            Kind::Ref(Named::Number),
            "\"+74950000001\"",
            "the number its people show; else the first of its region",
        ),
        optional("to", Kind::Steps, "\"queue:sales\"", "where its calls go"),
    ],
};

static EXTENSION: Section = Section {
    name: "extension",
    about: "A phone or a person.",
    identity: Some("number"),
    keys: &[
        required("number", Kind::Extension, "\"121\"", "what is dialled to reach it; its SIP user"),
        optional("name", Kind::Name, "\"Anna Smirnova\"", "person or place; else the number"),
        required("password", Kind::Secret, "{ env = \"EXT_121\", default = \"change-me\" }", "SIP password"),
        optional("branch", Kind::Ref(Named::Branch), "\"main\"", "its branch"),
        default("groups", Kind::List(&Kind::Name), "[]", "its groups; naming one makes it"),
        optional("mobile", Kind::Table(&MOBILE), "{ number = \"+79120000101\" }", "a mobile phone that rings with it"),
        default(
            "outbound",
            Kind::Choice(&["internal", "local", "national", "international"]),
            "\"national\"",
            "what it may dial",
        ),
        default(
            "max_calls",
            Kind::Int(0, 1_000),
            "2",
            "calls at once, 0: no limit; a queue or group rings it only when it is free",
        ),
        default(
            "kind",
            Kind::Choice(&["phone", "paging"]),
            "\"phone\"",
            "paging: a loudspeaker, never forwarded, never in a queue",
        ),
        optional("vendor", Kind::Choice(VENDORS), "\"yealink\"", "else known by its User-Agent"),
        optional(
            "intercom_from",
            Kind::Some(&Kind::Target(Targets::People)),
            "[\"group:sales\"]",
            "who may talk into it at once; else its own groups",
        ),
        optional("record", Kind::Choice(MODES), "\"all\"", "whether its calls are recorded"),
    ],
};

const VENDORS: &[&str] = &crate::directory::vendor::NAMES;

pub static MOBILE: Section = Section {
    name: "extension.mobile",
    about: "A mobile phone that rings with an extension.",
    identity: None,
    keys: &[
        required("number", Kind::E164, "\"+79120000101\"", "its number"),
        default("after", Kind::Duration, "\"0s\"", "rings this much later"),
        default("confirm", Kind::Bool, "true", "\"press 1\" keeps its voicemail out"),
    ],
};

static QUEUE: Section = Section {
    name: "queue",
    about: "A queue of callers.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"sales\"", "its name, also a SIP user"),
        optional("number", Kind::Extension, "\"800\"", "what is dialled to reach it"),
        required("agents", Kind::Some(&Kind::Target(Targets::Agent)), "[\"extension:121\"]", "who answers, in order"),
        default(
            "strategy",
            Kind::Choice(&["ring-all", "first-free", "longest-idle", "round-robin"]),
            "\"ring-all\"",
            "who is rung",
        ),
        default("ring", Kind::Duration, "\"20s\"", "how long an agent is rung"),
        default("wrap_up", Kind::Duration, "\"0s\"", "an agent rests this long after a call of the queue"),
        optional("wait", Kind::Duration, "\"60s\"", "how long a caller waits; else all who are free are rung once"),
        optional("overflow", Kind::Steps, "[\"extension:130\"]", "where callers go then"),
        optional("record", Kind::Choice(MODES), "\"all\"", "whether its calls are recorded"),
        optional("label", Kind::Words, "\"Sales\"", "shown before the caller's name"),
        optional("music", Kind::Path, "\"music.wav\"", "what callers hear meanwhile; else ringback"),
        default("elsewhere", Kind::Bool, "true", "phones that lost are told so, and note no missed call"),
    ],
};

static DUTY: Section = Section {
    name: "duty",
    about: "Who answers outside hours.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"weekend\"", "its name"),
        optional("roster", Kind::Tables(&ROSTER), "", "who, from when until when"),
        optional("otherwise", Kind::Steps, "\"extension:121\"", "when the roster names nobody"),
    ],
};

static ROSTER: Section = Section {
    name: "duty.roster",
    about: "A turn of duty.",
    identity: None,
    keys: &[
        required("from", Kind::Instant, "\"2026-11-21T00:00\"", "begin, in the node's zone"),
        required("until", Kind::Instant, "\"2026-11-23T09:00\"", "end"),
        required("to", Kind::Steps, "\"number:+79120000777\"", "who"),
    ],
};

static DEALER: Section = Section {
    name: "dealer",
    about: "A partner who takes calls of his regions.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"siberia\"", "its name, also a SIP user"),
        optional("number", Kind::Extension, "\"910\"", "what is dialled to reach it"),
        optional("regions", Kind::List(&Kind::Region), "[\"RU-KEM\"]", "whose callers are his"),
        optional("to", Kind::Steps, "[\"number:+73842000001\"]", "where his calls go"),
        optional("dealers", Kind::List(&Kind::Ref(Named::Dealer)), "[]", "sub-dealers, tried after his own"),
        optional("timezone", Kind::Zone, "\"Asia/Novokuznetsk\"", "zone of his hours; else the node's"),
        optional("hours", Kind::List(&Kind::Hours), "[\"mon-fri 09:00-19:00\"]", "when he is open; else always"),
        optional("calendar", Kind::Ref(Named::Calendar), "\"office\"", "when he is open, instead of hours"),
    ],
};

static HOOK: Section = Section {
    name: "hook",
    about: "A program of yours that decides where a call goes.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"crm\"", "its name"),
        required("url", Kind::Url, "\"http://127.0.0.1:9000/route\"", "where it is asked"),
        default("timeout", Kind::Duration, "\"300ms\"", "then the next step"),
        default(
            "shape",
            Kind::Choice(&["strowger", "sipuni", "exolve", "zadarma"]),
            "\"strowger\"",
            "in whose words it is asked and answers",
        ),
        default(
            "cache",
            Kind::Duration,
            "\"0s\"",
            "answers for one caller and number are remembered so long; 0: never",
        ),
        default("concurrent", Kind::Int(1, 1000), "32", "questions at once; one more goes on to the next step"),
        optional(
            "secret",
            Kind::Secret,
            "{ env = \"ZADARMA_SECRET\", default = \"change-me\" }",
            "zadarma: signs the question",
        ),
        optional("label", Kind::Words, "\"shop\"", "sipuni: sent as `label`; else empty"),
        optional(
            "pick",
            Kind::Words,
            "\"/choice\"",
            "sipuni: the part of the answer that decides, a JSON pointer; else /choice",
        ),
        optional(
            "is",
            Kind::Words,
            "\"1\"",
            "sipuni: what stands there for `first`, else 1; anything else is `second`",
        ),
        optional("first", Kind::Steps, "\"queue:sales\"", "sipuni: steps of the first branch"),
        optional(
            "second",
            Kind::Steps,
            "\"queue:office\"",
            "sipuni: steps of the second branch; else the route goes on",
        ),
    ],
};

static WEBHOOK: Section = Section {
    name: "webhook",
    about: "A program of yours that is told what happens.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"crm\"", "its name"),
        required("url", Kind::Url, "\"http://127.0.0.1:9000/events\"", "where events are sent"),
        default(
            "events",
            Kind::List(&Kind::Words),
            "[\"call.ended\"]",
            "which; `call.*` for all of a kind, `*` for all",
        ),
        required("secret", Kind::Secret, "{ env = \"WEBHOOK_SECRET\", default = \"change-me\" }", "signs them"),
    ],
};

static POOL: Section = Section {
    name: "pool",
    about: "Numbers lent to visitors of a web site.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"site\"", "its name"),
        default("origins", Kind::List(&Kind::Url), "[]", "web sites that may ask"),
        optional("fallback", Kind::Ref(Named::Number), "\"+74950000001\"", "shown when none is free"),
        default("hold", Kind::Duration, "\"30m\"", "a visitor keeps his number this long"),
        default("cool_down", Kind::Duration, "\"30m\"", "then it rests this long"),
    ],
};

static ROUTE: Section = Section {
    name: "route",
    about: "Where a customer's call goes: the first whose `when` holds; its steps are tried in order.",
    identity: Some("name"),
    keys: &[
        required("name", Kind::Name, "\"everyone\"", "its name, shown with each call"),
        optional("when", Kind::Table(&WHEN), "{ number = \"+74950000001\" }", "all of it must hold; else always"),
        required("to", Kind::Steps, "[\"queue:sales\"]", "its steps"),
        optional("record", Kind::Choice(MODES), "\"all\"", "whether its calls are recorded"),
    ],
};

static WHEN: Section = Section {
    name: "route.when",
    about: "When a route holds; a value may be a list.",
    identity: None,
    keys: &[
        optional("number", Kind::Some(&Kind::Ref(Named::Number)), "\"+74950000001\"", "the number called"),
        optional("trunk", Kind::Some(&Kind::Ref(Named::Trunk)), "\"carrier\"", "the trunk it came by"),
        optional("campaign", Kind::Some(&Kind::Words), "\"site\"", "of the number called"),
        optional("category", Kind::Some(&Kind::Words), "\"regular\"", "of the caller's contact, or unknown"),
        optional("caller", Kind::Some(&Kind::Caller), "\"+7913*\"", "the caller's number, or its beginning"),
        optional("anonymous", Kind::Bool, "true", "whether the caller withholds his number"),
        optional("region", Kind::Some(&Kind::Region), "\"RU-NVS\"", "of the caller"),
        optional(
            "calendar",
            Kind::Ref(Named::Calendar),
            "\"office\"",
            "read in the zone of the branch of the number called",
        ),
        optional(
            "is",
            Kind::Some(&Kind::Choice(&["open", "closed", "holiday"])),
            "[\"closed\"]",
            "what the calendar says",
        ),
        optional("tag", Kind::Some(&Kind::Words), "\"vip\"", "of the caller's contact"),
    ],
};

/// A step written as a table.
pub static STEP: Section = Section {
    name: "step",
    about: "A step of a route, queue, branch, dealer or duty.",
    identity: None,
    keys: &[
        required("target", Kind::Target(Targets::Step), "\"manager\"", "where"),
        optional("ring", Kind::Duration, "\"15s\"", "how long it rings"),
        optional("after", Kind::Duration, "\"5s\"", "rings this much later"),
        optional("confirm", Kind::Bool, "true", "whether who answers must press 1"),
        optional("caller_name", Kind::Words, "\"Shop\"", "shown before the caller's name"),
        optional("record", Kind::Choice(MODES), "\"none\"", "whether it is recorded"),
        optional("answer", Kind::Bool, "true", "play: answers the call first"),
        optional("except_regions", Kind::Some(&Kind::Region), "[\"RU-NVS\"]", "callers from there go past it"),
    ],
};

static PAGE: Section = Section {
    name: "page",
    about: "An announcement over many phones.",
    identity: Some("number"),
    keys: &[
        required("number", Kind::Extension, "\"700\"", "what is dialled"),
        required("name", Kind::Name, "\"Shop floor\"", "its name"),
        required("members", Kind::Some(&Kind::Target(Targets::Member)), "[\"extension:121\"]", "who hears it"),
        default(
            "mode",
            Kind::Choice(&["one-way", "talkback"]),
            "\"one-way\"",
            "talkback: whoever speaks hears them all; groups of multicast and Polycom only listen",
        ),
        default("max", Kind::Duration, "\"2m\"", "longest announcement"),
        default("chime", Kind::Bool, "true", "a tone first"),
        default(
            "priority",
            Kind::Choice(&["normal", "emergency"]),
            "\"normal\"",
            "emergency: takes over phones that are in a page or a call",
        ),
        default("allow", Kind::Some(&Kind::Target(Targets::People)), "[]", "who may; none: nobody"),
    ],
};

static DIAL: Section = Section {
    name: "dial",
    about: "What phones dial; the longest literal prefix wins.",
    identity: None,
    keys: &[
        default(
            "outside",
            Kind::Some(&Kind::Pattern),
            "[\"8XXXXXXXXXX\", \"+X.\", \"810X.\"]",
            "outside numbers: national, E.164, international",
        ),
        default(
            "forbidden",
            Kind::Some(&Kind::Prefix),
            "[\"+7803\", \"+7809\", \"+870\", \"+881\", \"+882\", \"+883\", \"+888\", \"+979\", \"+1900\", \"+449\"]",
            "paid and satellite numbers: no call goes there, whoever wants it, steps and mobiles included; [] for none",
        ),
        optional("intercom", Kind::Code, "\"*80\"", "*80121 talks into 121 at once, if 121 lets the caller"),
        optional("forward_on", Kind::Code, "\"*72\"", "forward").later("not known yet"),
        optional("forward_off", Kind::Code, "\"*73\"", "forward no more").later("not known yet"),
        optional("dnd_on", Kind::Code, "\"*78\"", "do not disturb").later("not known yet"),
        optional("dnd_off", Kind::Code, "\"*79\"", "disturb again").later("not known yet"),
        optional("pause", Kind::Code, "\"*65\"", "an agent's pause, and the end of it").later("not known yet"),
        optional("pickup", Kind::Code, "\"*55\"", "alone: own group; *55121: that phone").later("not known yet"),
        optional("listen", Kind::Code, "\"*90\"", "supervisors: *90121 listens; then 1 listen, 2 whisper, 3 join")
            .later("not known yet"),
        optional("park", Kind::Park, "\"751-759\"", "parked calls wait here").later("not known yet"),
        default("emergency", Kind::Some(&Kind::Code), "[\"112\"]", "never limited, never blocked"),
        optional("in_call", Kind::Table(&IN_CALL), "", "keys during a call, from an extension's side only")
            .later("checked, but keys pass through to the other side"),
    ],
};

static IN_CALL: Section = Section {
    name: "dial.in_call",
    about: "Keys during a call, from an extension's side only.",
    identity: None,
    keys: &[
        optional("record", Kind::Code, "\"*1\"", "recording on and off"),
        optional("attended", Kind::Code, "\"*2\"", "transfer after talking"),
        optional("transfer", Kind::Code, "\"##\"", "transfer at once"),
        optional("park", Kind::Code, "\"*5\"", "park"),
    ],
};

/// Every section, with a step's.
pub fn sections() -> impl Iterator<Item = &'static Section> {
    fn below(section: &'static Section, all: &mut Vec<&'static Section>) {
        all.push(section);
        for key in section.keys {
            if let Kind::Table(inner) | Kind::Tables(inner) = &key.kind {
                below(inner, all);
            }
        }
    }
    let mut all = Vec::new();
    below(&ROOT, &mut all);
    all.push(&STEP);
    all.into_iter()
}

/// The sections that have a key of this name, as the operator writes them.
pub fn owners(key: &str) -> Vec<&'static str> {
    let owned = sections().filter(|s| !s.name.is_empty() && s.keys.iter().any(|k| k.name == key));
    owned.map(|s| s.name).collect()
}

impl Kind {
    /// The type in words, as `check --defaults` prints it.
    pub fn words(&self) -> String {
        match self {
            Kind::Words | Kind::Name => "text".to_owned(),
            Kind::Extension => "number or SIP user".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::Int(a, b) if a == b => a.to_string(),
            Kind::Int(a, b) => format!("{a} to {b}"),
            Kind::Duration => "duration".to_owned(),
            Kind::Size => "size".to_owned(),
            Kind::Zone => "IANA zone".to_owned(),
            Kind::Country => "ISO 3166-1 country".to_owned(),
            Kind::Region => "ISO 3166-2 region".to_owned(),
            Kind::E164 => "E.164 number".to_owned(),
            Kind::Caller => "E.164 number, or its beginning with *".to_owned(),
            Kind::Address => "IP address:port".to_owned(),
            Kind::Ip => "IP address".to_owned(),
            Kind::Cidr => "IP address/prefix".to_owned(),
            Kind::Host => "host name".to_owned(),
            Kind::SipUri => "sip:host:port".to_owned(),
            Kind::Header => "header name".to_owned(),
            Kind::Url => "http(s) URL".to_owned(),
            Kind::StoreUrl => "sqlite:FILE".to_owned(),
            Kind::Date => "YYYY-MM-DD".to_owned(),
            Kind::Instant => "YYYY-MM-DDTHH:MM".to_owned(),
            Kind::Hours => "hours of a week".to_owned(),
            Kind::HoursOfADay => "hours".to_owned(),
            Kind::Ports => "FIRST-LAST".to_owned(),
            Kind::Park => "FIRST-LAST".to_owned(),
            Kind::Pattern => "digits, +, X for any digit, a final . for more".to_owned(),
            Kind::Prefix => "beginning of E.164 numbers".to_owned(),
            Kind::Code => "digits, * and #".to_owned(),
            Kind::Path => "path".to_owned(),
            Kind::Glob => "path with *".to_owned(),
            Kind::Secret => "text, { file }, { credential } or { env, default }".to_owned(),
            Kind::Choice(words) => words.join(" | "),
            Kind::Ref(named) => format!("name of a {}", named.word()),
            Kind::Target(_) => "target".to_owned(),
            Kind::Steps => "targets or steps".to_owned(),
            Kind::List(inner) => format!("list of {}", inner.words()),
            Kind::Some(inner) => format!("{}, or a list", inner.words()),
            Kind::Table(_) => "table".to_owned(),
            Kind::Tables(_) => "tables".to_owned(),
        }
    }
}
