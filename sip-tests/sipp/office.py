"""What the scenarios of `run` and `routes.py` share: checks, sound, the office under test, baresip. Python 3 standard library only."""

import array
import glob
import json
import math
import os
import signal
import socket
import subprocess
import time
import wave

import lab

HERE = os.path.dirname(os.path.abspath(__file__))
NUMBER, QUEUE_NUMBER = "+73433000001", "+73433000002"
TONE_A, TONE_B = 440, 880


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


def need(*tools):
    missing = [t for t in tools if not lab.find(t)]
    if missing:
        raise Skipped(f"not installed: {', '.join(missing)}")


def check(condition, why):
    if not condition:
        raise Failed(why() if callable(why) else why)


def eventually(what, seconds, why):
    """Waits for `what()` to become true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.02)
    raise Failed(why() if callable(why) else why)


# ---- sound ----------------------------------------------------------------------------------------------------------


def alaw(sample):
    """One 16-bit sample as G.711 A-law."""
    sign = 0x80 if sample >= 0 else 0
    sample = min(abs(sample), 32767) >> 3
    if sample >= 32 * 2:
        exponent = sample.bit_length() - 5
        value = (exponent << 4 | (sample >> exponent) & 15) if exponent > 0 else sample >> 1
    else:
        value = sample >> 1
    return (sign | min(value, 127)) ^ 0x55


def tone_alaw(path, frequency, seconds):
    """A raw A-law file for SIPp's rtp_stream."""
    period = [alaw(int(12000 * math.sin(2 * math.pi * frequency * n / 8000))) for n in range(8000)]
    with open(path, "wb") as f:
        f.write(bytes(period) * seconds)


def tone_wav(path, frequency, seconds):
    samples = array.array("h", (int(12000 * math.sin(2 * math.pi * frequency * n / 8000)) for n in range(8000)))
    with wave.open(path, "wb") as f:
        f.setparams((1, 2, 8000, 0, "NONE", ""))
        f.writeframes(samples.tobytes() * seconds)


def channels(path):
    """The channels of a 16-bit WAV file and its rate. Reads what is there, also behind a header that says too little or too much."""
    with open(path, "rb") as f:
        data = f.read()
    with wave.open(path, "rb") as f:
        count, rate = f.getnchannels(), f.getframerate()
    body = data[data.index(b"data") + 8:]
    samples = array.array("h", body[: len(body) // (2 * count) * 2 * count])
    return [samples[i::count] for i in range(count)], rate


def share(samples, rate, frequency):
    """How much of the sound is this tone, 0 to 1 (Goertzel over blocks of 50 ms that are not silent)."""
    size, best = rate // 20, []
    for start in range(0, len(samples) - size, size):
        block = samples[start:start + size]
        energy = sum(s * s for s in block)
        if energy < size * 200 * 200:
            continue
        coefficient = 2 * math.cos(2 * math.pi * frequency / rate)
        a = b = 0.0
        for s in block:
            a, b = s + coefficient * a - b, a
        best.append((a * a + b * b - coefficient * a * b) / (energy * size / 2))
    return sum(best) / len(best) if best else 0.0


def spoken(samples, rate):
    """Seconds of the sound that are not silence."""
    size = rate // 50
    return sum(0.02 for i in range(0, len(samples) - size, size) if max(map(abs, samples[i:i + size])) > 500)


def holds(path, left, right, at_least):
    """The recording is stereo, each side holds its tone and not the other's, and each lasts."""
    sides, rate = channels(path)
    check(len(sides) == 2, f"{path} has {len(sides)} channels")
    for name, samples, own, other in (("left", sides[0], left, right), ("right", sides[1], right, left)):
        have = share(samples, rate, own)
        check(have > 0.6, f"the {name} side holds {have:.0%} of its {own} Hz tone")
        if own != other:
            check(share(samples, rate, other) < 0.1, f"the {name} side holds the other side's tone")
        lasts = spoken(samples, rate)
        check(lasts >= at_least, f"the {name} side holds {lasts:.2f} s of sound, {at_least:.2f} expected")


def sox_length(path):
    """The length that sox sees; a file that it cannot open fails."""
    done = subprocess.run(["sox", path, "-n", "stat"], capture_output=True, text=True)
    check(done.returncode == 0, f"sox cannot open it: {done.stderr.strip()[:200]}")
    return next(float(line.split(":")[1]) for line in done.stderr.splitlines() if line.startswith("Length"))


# ---- the office under test --------------------------------------------------------------------------------------------


class Office:
    """strowger with functional.toml or another template; phones are registered as asked."""

    def __init__(self, carrier1=None, carrier2=None, template="functional.toml", **values):
        self.carrier = carrier1 or lab.free_port()
        values.setdefault("digest", '"md5", "sha-256"')
        self.server = lab.strowger(os.path.join(HERE, template), carrier1=self.carrier, carrier2=carrier2 or lab.free_port(), **values)
        self.phones = {}
        self.prepare()
        self.server.start()

    def prepare(self):
        """Puts files beside the configuration before it is read."""

    @property
    def target(self):
        return self.server.address

    def phone(self, number, agent=None):
        """The port of a registered phone that calls itself `agent`, registered when first asked for."""
        if number not in self.phones:
            port = lab.free_port(pair=True)
            answer = lab.register(self.target, number, f"lab-password-{number}", port, agent=agent)
            check(lab.status(answer or b"") == 200, f"{number} could not register: {answer!r}")
            self.phones[number] = port
        return self.phones[number]

    def forget(self, number):
        if number in self.phones:
            lab.register(self.target, number, f"lab-password-{number}", self.phones.pop(number), expires=0)

    def records(self):
        done = subprocess.run([self.server.binary, "records", "--json", "--config", self.server.config], capture_output=True, text=True, timeout=10)
        check(done.returncode == 0, f"strowger records: {done.stderr.strip()[:200]}")
        text = done.stdout.strip()
        if not text:
            return []
        try:
            value = json.loads(text)
            return value.get("items", [value]) if isinstance(value, dict) else value
        except ValueError:
            return [json.loads(line) for line in text.splitlines()]

    def recordings(self):
        return sorted(glob.glob(os.path.join(self.server.directory, "**", "*.wav"), recursive=True), key=os.path.getmtime)

    def close(self):
        self.server.stop()


def play(caller, callee, target, caller_port=None, callee_port=None, timeout=15, caller_extra=(), callee_extra=(), count=1, number=NUMBER, place=None):
    """One SIPp calls, another answers; both must end content. Returns both."""
    place = place or lab.scratch()
    uas = None
    if callee:
        uas = lab.Sipp(callee, callee_port, None, None, place, ["-m", count, "-mi", "127.0.0.1", *callee_extra]).listening()
    uac = lab.Sipp(caller, caller_port or lab.free_port(), target, None, place,
                   ["-m", count, "-s", number, "-mi", "127.0.0.1", "-timeout", f"{timeout}s", *caller_extra])
    ended = uac.wait(timeout + 2)
    uas_ended = uas.wait(2) if uas else 0
    said = f"{caller} left {ended}: {uac.why()}" + (f"; {callee} left {uas_ended}: {uas.why()}" if uas else "")
    uac.stop()
    if uas:
        uas.stop()
    check(ended == 0 and uas_ended == 0, said)
    return uac, uas


SCENARIOS = []


def scenario(slow=False, needs=()):
    def keep(function):
        SCENARIOS.append((function.__name__, function, slow, needs))
        return function
    return keep


class Baresip:
    """A headless baresip that answers by itself, speaks a tone and writes down what it hears. With `control` it presses keys."""

    def __init__(self, number, tone, server=None, command=None, control=False):
        self.place = lab.scratch()
        self.heard = os.path.join(self.place, "heard")
        os.mkdir(self.heard)
        self.port = lab.free_port(pair=True)  # it takes the port behind it for TLS
        media = lab.free_port(pair=True)
        tone_wav(os.path.join(self.place, "tone.wav"), tone, 30)
        modules = next((d for d in ["/usr/lib/baresip/modules", *glob.glob("/usr/lib/*/baresip/modules")] if os.path.isdir(d)), None)
        if modules is None:
            raise Skipped("no baresip modules")
        names = ["stdio", "g711", "aufile", "aubridge", "sndfile"]
        lines = [f"sip_listen 127.0.0.1:{self.port}", f"audio_player aubridge,o{number}", f"audio_source aufile,{self.place}/tone.wav",
                 f"audio_alert aubridge,a{number}", f"rtp_ports {media}-{media + 9}", "audio_level no", "jitter_buffer_delay 1-5", f"module_path {modules}",
                 *[f"module {n}.so" for n in names], "module_app account.so", "module_app menu.so", f"snd_path {self.heard}"]
        self.control = lab.free_port() if control else None
        if control:
            lines += ["module_app ctrl_tcp.so", f"ctrl_tcp_listen 127.0.0.1:{self.control}"]
        self.write("config", "\n".join(lines) + "\n")
        self.write("contacts", "")
        if server:
            account = f"<sip:{number}@127.0.0.1:{server[1]}>;auth_user={number};auth_pass=lab-password-{number};regint=120"
        else:
            account = f"<sip:{number}@127.0.0.1:{self.port}>;regint=0"
        self.write("accounts", account + ";answermode=auto;audio_codecs=PCMA/8000/1\n")
        self.log = os.path.join(self.place, "log")
        with open(self.log, "wb") as out:
            self.child = lab.start(["baresip", "-f", self.place] + (["-e", command] if command else []), cwd=self.place, stdout=out, stderr=out)

    def write(self, name, text):
        with open(os.path.join(self.place, name), "w") as f:
            f.write(text)

    def says(self, text):
        with open(self.log, "rb") as f:
            return text.encode() in f.read()

    def words(self):
        with open(self.log, "rb") as f:
            return f.read().decode("utf-8", "replace")[-300:].replace("\n", " | ")

    def press(self, keys):
        """Presses keys in the call, as telephone events (RFC 4733)."""
        command = json.dumps({"command": "sndcode", "params": keys}).encode()
        with socket.create_connection(("127.0.0.1", self.control), 2) as control:
            control.sendall(str(len(command)).encode() + b":" + command + b",")
            control.settimeout(2)
            control.recv(4096)

    def hang_up(self):
        lab.stop(self.child, signal.SIGTERM, 3)

    def sound(self):
        """What it heard: samples and their rate."""
        files = glob.glob(os.path.join(self.heard, "*-dec.wav"))
        check(len(files) == 1, f"{len(files)} files of what was heard")
        (samples, *_), rate = channels(files[0])
        return samples, rate

    def heard_for(self):
        """Seconds of what it has heard so far, silence too: the file grows as sound comes."""
        return sum(max(0, os.path.getsize(f) - 44) for f in glob.glob(os.path.join(self.heard, "*-dec.wav"))) / 16000

    def check_heard(self, tone, at_least):
        samples, rate = self.sound()
        have = share(samples, rate, tone)
        check(have > 0.6, f"heard {have:.0%} of a {tone} Hz tone")
        lasts = spoken(samples, rate)
        check(lasts >= at_least, f"heard {lasts:.2f} s of sound, {at_least:.2f} expected")
