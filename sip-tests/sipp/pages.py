"""Announcements and intercom: SIPp and baresip are the loudspeakers, baresip is the foreman who speaks. Offices are those of
routes.toml."""

import os
import signal
import sqlite3

import lab
from lab import Sipp
from office import TONE_A, TONE_B, Baresip, check, eventually, share, tone_wav
from routes import ends, requests, scenario, traced

# A make: how it calls itself, the header that it understands, and one that is another make's.
FANVIL = ("Fanvil PA2 2.8.1", "Call-Info", "answer-after=0", "Alert-Info")
PANASONIC = ("Panasonic_KX-HDV130/01.002", "Alert-Info", "Intercom", "Call-Info")


def speaker(office, number, make):
    """A loudspeaker of this make, registered, that answers only when it is told to in its own words."""
    agent, header, says, other = make
    path = lab.render(os.path.join(lab.HERE, "speaker.xml"), os.path.join(office.place, f"speaker{number}.xml"), header=header, says=says, **{"not": other})
    port = office.phone(number, agent)
    return Sipp(path, port, None, None, office.place, ["-m", 1, "-mi", "127.0.0.1", "-mp", lab.free_port(pair=True), *traced(office.place, port)]).listening()


def registered(office, number, tone, command=None):
    """A baresip of ours that answers by itself."""
    phone = Baresip(number, tone, office.target, command)
    eventually(lambda: phone.says("200 OK"), 5, lambda: f"{number} did not register: {phone.words()}")
    return phone


def foreman_dials(office, what):
    foreman = registered(office, "211", TONE_A, f"/dial sip:{what}@127.0.0.1:{office.server.port}")
    eventually(lambda: foreman.says("Call established"), 8, lambda: f"nobody answers {what}: {foreman.words()}")
    return foreman


def hears(phone, seconds):
    eventually(lambda: phone.heard_for() >= seconds, seconds + 5, lambda: f"it heard {phone.heard_for():.2f} s")


def report(record):
    """Who is in the record of a page, with what became of each."""
    return {who["target"]: who["result"] for phase in record["journey"] for who in phase["who"]}


@scenario(needs=["baresip"])
def a_page_is_heard_by_three_makes(office_of):
    """Each make is told to answer in its own words; the foreman's voice comes out of a baresip, and the report names all."""
    office = office_of()
    fanvil, panasonic = speaker(office, "601", FANVIL), speaker(office, "602", PANASONIC)
    loud = registered(office, "603", TONE_B)
    foreman = foreman_dials(office, "700")
    hears(loud, 5)
    foreman.hang_up()
    ends(fanvil, "the Fanvil")
    ends(panasonic, "the Panasonic")
    record = office.record()
    loud.hang_up()
    loud.check_heard(TONE_A, 3.5)
    check(record["direction"] == "page" and record["answered_by"] == "page:700", f"the record says {record['direction']} {record['answered_by']}")
    check(report(record) == {f"extension:{n}": "answered" for n in (601, 602, 603)}, f"the report says {report(record)}")


@scenario(needs=["baresip"])
def a_page_of_pages_rings_nobody_twice_and_names_who_is_away(office_of):
    """799 leads to 700 and to 601 once more; 602 is away and 603 is no loudspeaker today: both are named, 601 is rung once."""
    office = office_of()
    fanvil = speaker(office, "601", FANVIL)
    foreman = foreman_dials(office, "799")
    eventually(lambda: requests(office.place, fanvil.port, "ACK"), 3, "601 did not answer")
    foreman.hang_up()
    ends(fanvil, "the Fanvil")
    said = report(office.record())
    check(said == {"extension:601": "answered", "extension:602": "unreachable", "extension:603": "unreachable"}, f"the report says {said}")
    check(len(requests(office.place, fanvil.port, "INVITE")) == 1, "601 was rung twice")


@scenario(needs=["baresip"])
def a_speaker_that_only_rings_is_reported(office_of):
    """602 registers as a Fanvil but understands Panasonic's words only: it rings, is left after 5 s, and the report says so; 601 plays."""
    office = office_of()
    fanvil = speaker(office, "601", FANVIL)
    deaf = speaker(office, "602", (FANVIL[0], *PANASONIC[1:]))
    foreman = foreman_dials(office, "700")
    eventually(lambda: deaf.child.poll() is not None, 8, "602 was rung for longer than 5 s")
    ends(deaf, "the deaf one")
    check(len(requests(office.place, deaf.port, "CANCEL")) == 1, "602 got no CANCEL")
    foreman.hang_up()
    ends(fanvil, "the Fanvil")
    said = report(office.record())
    check(said == {"extension:601": "answered", "extension:602": "no_answer", "extension:603": "unreachable"}, f"the report says {said}")


@scenario(needs=["baresip"])
def a_page_with_talkback_is_heard_back(office_of):
    """701: two baresips answer over their loudspeakers at once; the foreman hears both tones and not his own, each of them hears him alone."""
    office = office_of()
    tones = {"602": 620, "603": TONE_B}
    louds = [registered(office, number, tone) for number, tone in tones.items()]
    foreman = foreman_dials(office, "701")
    hears(foreman, 5)
    foreman.hang_up()
    record = office.record()
    for loud in louds:
        loud.hang_up()
        loud.check_heard(TONE_A, 2.5)
    samples, rate = foreman.sound()
    shares = {tone: share(samples[rate * 2:], rate, tone) for tone in (*tones.values(), TONE_A)}
    check(all(shares[tone] > 0.3 for tone in tones.values()) and shares[TONE_A] < 0.05, f"the foreman heard {shares}")
    check(report(record) == {f"extension:{n}": "answered" for n in tones}, f"the report says {report(record)}")


def kept_open(office):
    """How many loudspeakers the store would have closed by the next run."""
    with sqlite3.connect(f"file:{office.server.directory}/strowger.db?mode=ro", uri=True) as store:
        return store.execute("SELECT count(*) FROM opened").fetchone()[0]


@scenario()
def kill_9_leaves_no_speaker_open(office_of):
    """kill -9 while a file is played over 700: started again, strowger sends both loudspeakers their BYE, and says so in its log."""
    office = office_of()
    fanvil, panasonic = speaker(office, "601", FANVIL), speaker(office, "602", PANASONIC)
    drill = os.path.join(office.place, "drill.wav")
    tone_wav(drill, TONE_A, 60)
    office.strowger("page", "700", drill)
    eventually(lambda: kept_open(office) == 2, 5, lambda: f"the store keeps {kept_open(office)} loudspeakers")
    for each in (fanvil, panasonic):
        eventually(lambda: requests(office.place, each.port, "ACK"), 3, "no ACK before the kill")
    office.server.child.send_signal(signal.SIGKILL)
    office.server.child.wait()
    check(fanvil.child.poll() is None and panasonic.child.poll() is None, "a loudspeaker was closed before the kill")
    office.server.start()
    ends(fanvil, "the Fanvil")
    ends(panasonic, "the Panasonic")
    for each in (fanvil, panasonic):
        byes = requests(office.place, each.port, "BYE")
        check(len(byes) == 1 and b"the server was restarted" in byes[0], f"{byes}")
    eventually(lambda: kept_open(office) == 0, 3, lambda: f"the store still keeps {kept_open(office)} loudspeakers")
    said = office.server.last_words(4000)
    check(said.count("is closed: it hung up") == 2, f"the log says {said}")


@scenario(needs=["baresip"])
def intercom_opens_a_baresip(office_of):
    """*80212: 212 lets 211 in, and its phone answers by itself, after a tone; both hear each other."""
    office = office_of()
    opened = registered(office, "212", TONE_B)
    foreman = foreman_dials(office, "*80212")
    hears(opened, 4)
    hears(foreman, 3)
    foreman.hang_up()
    record = office.record()
    opened.hang_up()
    opened.check_heard(TONE_A, 2.5)
    foreman.check_heard(TONE_B, 2.0)
    check(any("lets extension:211 in" in why["because"] for why in record["explain"]), f"the trail says {record['explain']}")


@scenario(needs=["baresip"])
def intercom_opens_nobody_who_does_not_let_in(office_of):
    """*80200: 200 lets nobody in; its phone is not even rung, and 211 hears 403."""
    office = office_of()
    registered(office, "200", TONE_B)
    foreman = registered(office, "211", TONE_A, f"/dial sip:*80200@127.0.0.1:{office.server.port}")
    eventually(lambda: foreman.says("403"), 5, lambda: f"211 was not refused: {foreman.words()}")
    check(report(office.record()) == {}, "somebody was rung")
    foreman.hang_up()
