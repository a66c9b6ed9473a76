"""Who is reached, on which number: the scenarios of part 2. SIPp and baresip are carriers, mobiles, phones and callers; each
scenario has an office of its own (routes.toml), so that they are played side by side."""

import csv
import http.server
import json
import os
import re
import subprocess
import threading
import time

import lab
from lab import Sipp
from office import TONE_A, Baresip, Office, check, eventually, play, spoken, tone_wav

SCENARIOS = []
TONE_CLOSED = 620


def scenario(needs=()):
    def keep(function):
        SCENARIOS.append((function.__name__, function, needs))
        return function
    return keep


# ---- the cast ---------------------------------------------------------------------------------------------------------


class Company(Office):
    """strowger with routes.toml and SIPp as its carriers, `ural` and `siberia`: scenarios beside this file, or a baresip."""

    def __init__(self, ural="carrier", siberia="carrier", hook=None):
        self.place = lab.scratch()
        self.carriers = {}
        ports = {}
        for name, kind in (("ural", ural), ("siberia", siberia)):
            if isinstance(kind, str):
                ports[name] = lab.free_port()
                self.carriers[name] = Sipp(kind, ports[name], None, None, self.place, ["-mi", "127.0.0.1", "-rtp_echo", "-mp", lab.free_port(pair=True), *traced(self.place, ports[name])]).listening()
            else:
                ports[name] = kind.port
        first = lab.free_media()
        super().__init__(ports["ural"], ports["siberia"], template="routes.toml", hook=hook or lab.free_port(), media=f"{first}-{first + 99}")
        self.ports = ports
        self.up(("ural", "siberia"))

    def prepare(self):
        tone_wav(os.path.join(self.server.directory, "closed.wav"), TONE_CLOSED, 2)

    def up(self, trunks):
        """Waits until the trunks have answered OPTIONS: what is not known to live is called last."""
        def alive():
            return {t["name"] for t in self.strowger("trunks", "--json") if t["because"] == "up"} >= set(trunks)
        eventually(alive, 5, lambda: f"trunks: {self.strowger('trunks', '--json')}")

    def strowger(self, *words):
        done = subprocess.run([self.server.binary, *words, "--config", self.server.config], capture_output=True, text=True, timeout=10)
        check(done.returncode == 0, f"strowger {' '.join(words)}: {done.stderr.strip()[:200]}")
        return [json.loads(line) for line in done.stdout.splitlines()] if "--json" in words else done.stdout

    def seen(self, carrier, method="INVITE"):
        """The requests of this method that a carrier got, each once."""
        return requests(self.place, self.ports[carrier], method)

    def written(self, count):
        """The call records, once there are so many."""
        return eventually(lambda: found if len(found := self.records()) == count else None, 3, lambda: f"no {count} records: {self.records()}")

    def record(self):
        """The record of the only call."""
        return self.written(1)[0]

    def close(self):
        super().close()
        for sipp in self.carriers.values():
            sipp.stop()


def traced(place, port):
    return ["-trace_msg", "-message_file", os.path.join(place, f"{port}.msg")]


def requests(place, port, method):
    """What the SIPp on this port received, retransmissions left out."""
    with open(os.path.join(place, f"{port}.msg"), encoding="utf-8", errors="replace") as f:
        blocks = re.split(r"^-{20,}.*\n", f.read(), flags=re.M)
    found = []
    for block in blocks:
        head, _, message = block.partition("\n\n")
        if " received " in head and message.startswith(method + " ") and message not in found:
            found.append(message)
    return [m.replace("\r", "").replace("\n", "\r\n").encode() for m in found]


def one(found, what):
    check(len(found) == 1, lambda: f"{len(found)} {what} instead of one")
    return found[0]


def header(message, name):
    return (lab.header(message, name) or [""])[0]


def user(message, name):
    """The user of a header's address."""
    return (re.findall(r"sips?:([^@>]*)@", header(message, name)) or [""])[0]


def called(message):
    return (re.findall(rb"^\w+ sip:([^@ ]*)", message) or [b""])[0].decode()


def calls_from(place, number):
    """uac.xml, calling from another number."""
    with open(os.path.join(lab.HERE, "uac.xml")) as f:
        text = f.read().replace("+79131234567", number)
    path = os.path.join(place, f"uac{number}.xml")
    with open(path, "w") as f:
        f.write(text)
    return path


def dials(office, number, place, extra=()):
    """201 dials; SIPp's own idea of the digest's URI leaves the user out (RFC 7616 3.4.6 wants the request's)."""
    play("uac_digest", None, office.target, number=number, place=place, caller_extra=[
        "-d", 100, "-key", "user", "201", "-au", "201", "-ap", "lab-password-201", "-auth_uri", f"{number}@127.0.0.1:{office.server.port}", *extra])


def phone(office, number, scenario_name="uas", count=1):
    """A phone that plays a scenario; it registers first."""
    port = office.phone(number)
    return Sipp(scenario_name, port, None, None, office.place, ["-m", count, "-mi", "127.0.0.1", *traced(office.place, port)]).listening()


def ends(sipp, who):
    check(sipp.wait(4) == 0, lambda: f"{who}: {sipp.why()}")


# ---- the scenarios ------------------------------------------------------------------------------------------------------


@scenario()
def the_number_of_the_region_called(office_of):
    """A call to Novosibirsk shows the Novosibirsk number on its carrier, one to Yekaterinburg that of Yekaterinburg."""
    office = office_of()
    dials(office, "83832001020", office.place)
    dials(office, "83432001020", office.place)
    siberia, ural = one(office.seen("siberia"), "calls to siberia"), one(office.seen("ural"), "calls to ural")
    check(called(siberia) == "+73832001020" and user(siberia, "From") == "+73833000001", f"siberia saw {siberia[:400]}")
    check(called(ural) == "+73432001020" and user(ural, "P-Asserted-Identity") == "+73433000001", f"ural saw {ural[:400]}")
    shown = sorted(r["shown"] for r in office.written(2))
    check(shown == ["+73433000001", "+73833000001"], f"the records say {shown}")


@scenario()
def an_imported_supplier_goes_to_production(office_of):
    """After `strowger import contacts` into the running server a supplier reaches 202, and everybody else still 200."""
    office = office_of()
    path = os.path.join(office.place, "contacts.csv")
    with open(path, "w", newline="") as f:
        csv.writer(f, delimiter=";").writerows([["Телефон", "Название", "Категория"], ["8 (913) 555-66-77", "Металл-Снаб", "supplier"]])
    said = office.strowger("import", "contacts", path)
    check("1 new" in said, f"the import said {said!r}")
    supplier, other = calls_from(office.place, "+79135556677"), calls_from(office.place, "+79135550000")
    production, sales = phone(office, "202"), phone(office, "200")
    play(supplier, None, office.target, place=office.place, caller_extra=["-d", 100])
    ends(production, "production")
    play(other, None, office.target, place=office.place, caller_extra=["-d", 100])
    ends(sales, "sales")
    records = office.written(2)
    said = sorted((r["answered_by"], r["caller"]["category"]) for r in records)
    check(said == [("extension:200", "unknown"), ("extension:202", "supplier")], f"the records say {said}")


@scenario()
def first_free_takes_the_next(office_of):
    """Two agents, first-free: the first call rings the first only, the second, while that one talks, the second only."""
    office = office_of()
    first, second = phone(office, "205"), phone(office, "206")
    line = ["-m", 1, "-s", "+73433000004", "-mi", "127.0.0.1"]
    talking = Sipp("uac", lab.free_port(), office.target, None, office.place, [*line, "-d", 1500])
    eventually(lambda: requests(office.place, first.port, "ACK"), 3, "the first call was not answered")
    play("uac", None, office.target, number="+73433000004", place=office.place, caller_extra=["-d", 100])
    ends(second, "the second agent")
    check(first.child.poll() is None, "the first call is over already")
    ends(talking, "the first caller")
    ends(first, "the first agent")
    check(len(requests(office.place, first.port, "INVITE")) == 1, "the first agent was rung while it talked")


@scenario()
def a_mobile_presses_1_by_info(office_of):
    """203 has no phone here; its mobile answers behind a carrier and presses 1 by INFO: only then is the caller answered."""
    office = office_of(ural="carrier_presses_1")
    began = time.monotonic()
    play("uac", None, office.target, number="+73433000002", place=office.place, caller_extra=["-d", 300])
    check(time.monotonic() - began > 0.7, "the caller was answered before the key")
    record = office.record()
    check(record["answered_by"] == "extension:203", f"the record says {record['answered_by']}")
    check(any(p["phase"] == "confirm" for p in record["journey"]), "no confirmation in the journey")


@scenario(needs=["baresip"])
def a_mobile_presses_1_by_rfc_4733(office_of):
    """The same with baresip as the mobile: it hears our prompt and answers it with a telephone event."""
    mobile = Baresip("+79120000203", TONE_A, control=True)
    eventually(lambda: mobile.says("is ready"), 5, lambda: f"no baresip: {mobile.words()}")
    office = office_of(ural=mobile)
    caller = Sipp("uac", lab.free_port(), office.target, None, office.place, ["-m", 1, "-s", "+73433000002", "-mi", "127.0.0.1", "-d", 300])
    eventually(lambda: mobile.says("Call established"), 3, lambda: f"the mobile was not reached: {mobile.words()}")
    # Our prompt, "press 1", is heard from the beginning to the end, and once more.
    eventually(lambda: mobile.heard_for() > 2, 8, lambda: f"the mobile heard {mobile.heard_for():.2f} s")
    check(caller.child.poll() is None and not office.records(), "the call went on without a key")
    mobile.press("1")
    ends(caller, "the caller")
    mobile.hang_up()
    record = office.record()
    check(record["answered_by"] == "extension:203", f"the record says {record['answered_by']}")
    check(spoken(*mobile.sound()) > 0.5, "the mobile heard no prompt")


@scenario()
def a_voicemail_does_not_win(office_of):
    """The mobile's voicemail answers at once and presses nothing; the desk rings on, answers, and has the call."""
    office = office_of()
    desk = phone(office, "203", "uas_slow")
    play("uac", None, office.target, number="+73433000002", place=office.place, caller_extra=["-d", 200])
    ends(desk, "the desk phone")
    bye = one(office.seen("ural", "BYE"), "BYEs to the voicemail")
    check("cause=200" in header(bye, "Reason"), f"the voicemail was told {header(bye, 'Reason')!r}")
    record = office.record()
    legs = {w["target"]: w["result"] for p in record["journey"] for w in p["who"]}
    check(record["answered_by"] == "extension:203" and legs.get("number:+79120000203") not in (None, "answered"), f"the record says {legs}")


@scenario()
def a_mobile_that_loses_is_told(office_of):
    """Desk and mobile ring at once; the desk answers, and the mobile's CANCEL says that it was answered elsewhere."""
    office = office_of(ural="carrier_lost")
    desk = phone(office, "204", "uas_slow")
    play("uac", None, office.target, number="+73433000003", place=office.place, caller_extra=["-d", 100])
    ends(desk, "the desk phone")
    check(office.carriers["ural"].count("FailedCall") == 0, lambda: f"the mobile: {office.carriers['ural'].why()}")
    check(len(office.seen("ural", "CANCEL")) == 1, "the mobile got no CANCEL")


@scenario(needs=["baresip"])
def the_closed_announcement_is_heard(office_of):
    """`play:` that answers: baresip as a customer hears the file, whole."""
    office = office_of()
    customer = Baresip("+79130001122", TONE_A, command=f"/dial sip:+73433000005@127.0.0.1:{office.server.port}")
    eventually(lambda: customer.says("Call established"), 4, lambda: f"no call: {customer.words()}")
    record = eventually(office.records, 5, "the announcement did not end")[-1]
    customer.hang_up()
    customer.check_heard(TONE_CLOSED, 1.7)
    check(any(p["phase"] == "prompt" for p in record["journey"]), "no prompt in the journey")


@scenario()
def a_program_decides(office_of):
    """A hook is asked over HTTP and sends the call to 202; when it fails, the next step of the route takes it."""
    with Hook() as hook:
        office = office_of(hook=hook.port)
        hook.answers = {"to": ["extension:202"], "caller_name": "From the CRM"}
        production = phone(office, "202")
        play("uac", None, office.target, number="+73433000006", place=office.place, caller_extra=["-d", 100])
        ends(production, "production")
        invite = one(requests(office.place, production.port, "INVITE"), "calls to production")
        check("From the CRM" in header(invite, "From"), f"202 saw {header(invite, 'From')}")
        question = one(hook.asked, "questions")
        said = {k: question.get(k) for k in ("v", "caller", "called", "category")}
        check(said == {"v": 1, "caller": "+79131234567", "called": "+73433000006", "category": "unknown"}, f"asked {question}")
        hook.answers = None
        sales = phone(office, "200")
        play("uac", None, office.target, number="+73433000006", place=office.place, caller_extra=["-d", 100])
        ends(sales, "sales")


@scenario()
def a_forwarded_call_says_so(office_of):
    """A call that goes out again carries Diversion and History-Info, and shows a number of ours."""
    office = office_of()
    play("uac", None, office.target, number="+73433000007", place=office.place, caller_extra=["-d", 100])
    invite = one(office.seen("ural"), "calls to ural")
    check(called(invite) == "+79120000777", f"called {called(invite)}")
    check(user(invite, "Diversion") == "+73433000007", f"Diversion: {header(invite, 'Diversion')}")
    check("index=1.1" in header(invite, "History-Info"), f"History-Info: {header(invite, 'History-Info')}")
    check(user(invite, "P-Asserted-Identity") == "+73433000007", f"shown: {header(invite, 'P-Asserted-Identity')}")


@scenario()
def the_nearest_dealer_takes_8_800(office_of):
    """8-800 from Kemerovo goes to that region's dealer, from elsewhere to 200; the 8-800 number is never shown."""
    office = office_of()
    sales = phone(office, "200")
    play(calls_from(office.place, "+73842334455"), None, office.target, number="+78003000001", place=office.place, caller_extra=["-d", 100])
    play(calls_from(office.place, "+73432334455"), None, office.target, number="+78003000001", place=office.place, caller_extra=["-d", 100])
    ends(sales, "sales")
    invite = one(office.seen("siberia"), "calls to siberia")
    check(called(invite) == "+73842000001" and user(invite, "From") == "+73833000001", f"the dealer's carrier saw {invite[:400]}")


class Hook:
    """An HTTP server that is asked where calls go; it answers what it is told to, or 500."""

    def __init__(self):
        self.asked, self.answers = [], None
        hook = self

        class Ask(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                hook.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                body = json.dumps(hook.answers).encode()
                self.send_response(200 if hook.answers else 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ask)
        self.port = self.server.server_port

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def played(function):
    """Plays a scenario with offices that are closed behind it."""
    companies = []

    def office_of(**how):
        companies.append(Company(**how))
        return companies[-1]

    try:
        function(office_of)
        for office in companies:
            check(office.server.alive(), lambda: "the server does not answer OPTIONS afterwards: " + office.server.last_words(200))
    finally:
        for office in companies:
            office.close()
