"""What the runners on real sockets share: a private directory, free ports on loopback, processes that are ended again, a server under
test, SIPp, a few SIP requests of our own, and readings from /proc. Python 3 standard library only.

Only 127.0.0.1 and ::1 are used, only processes started here are ended, and everything is removed when the interpreter leaves.
"""

import atexit
import hashlib
import itertools
import os
import random
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# Below Linux's ephemeral range (32768 on), so that no passing socket takes what we picked.
PORT_RANGE = (10000, 11999)

_children = []
_dirs = []


def scratch():
    """A new private directory, removed at the end."""
    path = tempfile.mkdtemp(prefix="strowger-lab-")
    _dirs.append(path)
    return path


def _cleanup():
    for child in _children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + 3
    for child in _children:
        try:
            child.wait(max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    for path in _dirs:
        if os.environ.get("KEEP"):
            print("kept", path, file=sys.stderr)
        else:
            shutil.rmtree(path, ignore_errors=True)


atexit.register(_cleanup)
for _sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(_sig, lambda number, frame: sys.exit(128 + number))


def start(argv, core=None, **kwargs):
    """Starts a process (pinned to `core` if given) that will be ended with us. Its output goes to /dev/null unless said otherwise."""
    if core is not None:
        argv = ["taskset", "-c", str(core)] + argv
    kwargs.setdefault("stdin", subprocess.DEVNULL)
    kwargs.setdefault("stdout", subprocess.DEVNULL)
    kwargs.setdefault("stderr", subprocess.DEVNULL)
    child = subprocess.Popen(argv, **kwargs)
    _children.append(child)
    return child


def stop(child, sig=signal.SIGTERM, patience=5):
    """Ends a process of ours and waits for it."""
    if child is None:
        return
    if child.poll() is None:
        child.send_signal(sig)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    if child in _children:
        _children.remove(child)


def find(tool):
    """The path of a program, or None."""
    return shutil.which(tool) or next((p for d in ("/usr/sbin", "/sbin") if os.path.exists(p := f"{d}/{tool}")), None)


def strowger_binary():
    """$STROWGER_BIN, else the release build, else the debug build; None when there is none."""
    target = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
    for path in (os.environ.get("STROWGER_BIN"), f"{target}/release/strowger", f"{target}/debug/strowger"):
        if path and os.access(path, os.X_OK):
            return path
    return None


_taken = set()


def free_port(pair=False, family=socket.AF_INET):
    """A port that is free for UDP and TCP on loopback (with `pair`, an even one with three free ones behind it: SIPp takes the next pair for
    video)."""
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    for _ in range(1000):
        port = random.randrange(*PORT_RANGE)
        wanted = [*range(port & ~3, (port | 3) + 1)] if pair else [port]
        if any(p in _taken for p in wanted):
            continue
        try:
            for p in wanted:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    with socket.socket(family, kind) as probe:
                        probe.bind((host, p))
        except OSError:
            continue
        _taken.update(wanted)
        return wanted[0]
    raise RuntimeError("no free port")


_media = itertools.count(14000, 100)


def free_media():
    """The first of 100 ports for media that no other server under test uses."""
    return next(_media)


def udp_bound(port):
    """Whether some process has this UDP port."""
    wanted = f":{port:04X}"
    return any(line.split()[1].endswith(wanted) for name in ("udp", "udp6") for line in _lines(f"/proc/net/{name}")[1:])


# ---- /proc ----------------------------------------------------------------------------------------------------------


def _lines(path):
    try:
        with open(path) as f:
            return f.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []


def family(pid):
    """The process and all its descendants."""
    found, todo = [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        for task in _listdir(f"/proc/{p}/task"):
            for line in _lines(f"/proc/{p}/task/{task}/children"):
                todo += [int(c) for c in line.split()]
    return found


def _listdir(path):
    try:
        return os.listdir(path)
    except (FileNotFoundError, ProcessLookupError):
        return []


def cpu_ns(pids):
    """CPU time of all threads of these processes, user and kernel, in nanoseconds (schedstat; clock ticks where the kernel has none)."""
    total = 0
    for pid in pids:
        threads = 0
        for task in _listdir(f"/proc/{pid}/task"):
            for line in _lines(f"/proc/{pid}/task/{task}/schedstat"):
                threads += int(line.split()[0])
        if threads == 0:
            for line in _lines(f"/proc/{pid}/stat"):
                fields = line.rsplit(")", 1)[1].split()
                threads = (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        total += threads
    return total


def wakeups(pids):
    """Voluntary context switches of all threads: how often one went to sleep, and so had to be woken."""
    total = 0
    for pid in pids:
        for task in _listdir(f"/proc/{pid}/task"):
            for line in _lines(f"/proc/{pid}/task/{task}/status"):
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def memory_kb(pids):
    """(VmRSS of the largest process, proportional set size of all): one number for one process, the other where memory is shared."""
    rss = pss = 0
    for pid in pids:
        for line in _lines(f"/proc/{pid}/status"):
            if line.startswith("VmRSS:"):
                rss = max(rss, int(line.split()[1]))
        for line in _lines(f"/proc/{pid}/smaps_rollup"):
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
    return rss, pss


def core_idle_ns(core):
    """Idle time of a core since boot, from /proc/stat."""
    for line in _lines("/proc/stat"):
        if line.startswith(f"cpu{core} "):
            fields = [int(x) for x in line.split()[1:]]
            return (fields[3] + fields[4]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return 0


# ---- a little SIP ---------------------------------------------------------------------------------------------------


def token(n=10):
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=n))


def request(method, uri, local, user="lab", to=None, headers=(), body=b"", call_id=None, cseq=1, tag=None, transport="UDP", contact=True):
    """A request outside a dialog as bytes."""
    host = f"[{local[0]}]" if ":" in local[0] else local[0]
    lines = [
        f"{method} {uri} SIP/2.0",
        f"Via: SIP/2.0/{transport} {host}:{local[1]};branch=z9hG4bK{token()};rport",
        f"From: <sip:{user}@{host}:{local[1]}>;tag={tag or token()}",
        f"To: <{to or uri}>",
        f"Call-ID: {call_id or token(16)}",
        f"CSeq: {cseq} {method}",
        "Max-Forwards: 70",
    ]
    if contact:
        lines.append(f"Contact: <sip:{user}@{host}:{local[1]}>")
    lines += list(headers) + [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def status(message):
    """The status code of a response, or None."""
    found = re.match(rb"SIP/2\.0 (\d{3}) ", message)
    return int(found.group(1)) if found else None


def header(message, name):
    """Every value of a header."""
    head = message.split(b"\r\n\r\n", 1)[0].decode("utf-8", "replace")
    return [v.strip() for n, _, v in (line.partition(":") for line in head.split("\r\n")[1:]) if n.strip().lower() == name.lower()]


def ask(sock, server, message, timeout=1.0, tries=1):
    """Sends and waits for a final response; None when there is none."""
    for _ in range(tries):
        try:
            sock.sendto(message, server)
            deadline = time.monotonic() + timeout
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                answer = sock.recv(65535)
                if (status(answer) or 0) >= 200:
                    return answer
        except (socket.timeout, ConnectionRefusedError):
            time.sleep(0.001)
    return None


def digest(challenge, user, password, method, uri, algorithm=None):
    """The Authorization value that answers a challenge (RFC 7616, MD5 or SHA-256, qop=auth)."""
    parts = dict((k.lower(), a or b) for k, a, b in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', challenge))
    name = parts.get("algorithm", "MD5")
    h = lambda text: (hashlib.sha256 if name.upper() == "SHA-256" else hashlib.md5)(text.encode()).hexdigest()
    ha1, ha2 = h(f"{user}:{parts['realm']}:{password}"), h(f"{method}:{uri}")
    cnonce, nc = token(), "00000001"
    if "qop" in parts:
        response = h(f"{ha1}:{parts['nonce']}:{nc}:{cnonce}:auth:{ha2}")
        extra = f', qop=auth, nc={nc}, cnonce="{cnonce}"'
    else:
        response, extra = h(f"{ha1}:{parts['nonce']}:{ha2}"), ""
    opaque = f', opaque="{parts["opaque"]}"' if "opaque" in parts else ""
    return f'Digest username="{user}", realm="{parts["realm"]}", nonce="{parts["nonce"]}", uri="{uri}", algorithm={name}, response="{response}"{extra}{opaque}'


def register(server, user, password, port, expires=3600, algorithm="MD5", source=None, agent=None):
    """Registers sip:user@127.0.0.1:port from that very port, which must be free, as a phone that calls itself `agent`; returns the last response."""
    uri = f"sip:{server[0]}:{server[1]}"
    aor = f"sip:{user}@{server[0]}:{server[1]}"
    call_id, tag = token(16), token()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", source or port))
        def once(cseq, extra=()):
            headers = [f"Contact: <sip:{user}@127.0.0.1:{port}>;expires={expires}", f"Expires: {expires}"] + ([f"User-Agent: {agent}"] if agent else []) + list(extra)
            message = request("REGISTER", uri, sock.getsockname(), user, aor, headers, call_id=call_id, cseq=cseq, tag=tag, contact=False)
            message = re.sub(rb"From: <[^>]*>", b"From: <" + aor.encode() + b">", message)
            return ask(sock, server, message, tries=3)
        first = once(1)
        if first is None or status(first) != 401:
            return first
        wanted = [c for c in header(first, "WWW-Authenticate") if f"algorithm={algorithm}".lower() in c.lower().replace('"', "")]
        challenge = (wanted or header(first, "WWW-Authenticate"))[0]
        return once(2, [f"Authorization: {digest(challenge, user, password, 'REGISTER', uri)}"])


# ---- servers --------------------------------------------------------------------------------------------------------


class Server:
    """A process under test that answers OPTIONS on 127.0.0.1:port."""

    def __init__(self, name, port, argv, core=None, cwd=None, log=None):
        self.name, self.port, self.address = name, port, ("127.0.0.1", port)
        self.log = log or os.path.join(cwd or scratch(), f"{name}.log")
        self.argv, self.core, self.cwd, self.child, self.started_in = argv, core, cwd, None, None

    def start(self, patience=10.0):
        """Starts it and waits for the first answered OPTIONS; the time that took is `started_in` (seconds)."""
        out = open(self.log, "ab")
        began = time.monotonic()
        self.child = start(self.argv, self.core, cwd=self.cwd, stdout=out, stderr=out)
        out.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.connect(self.address)
            while time.monotonic() - began < patience:
                if self.child.poll() is not None:
                    break
                try:
                    sock.send(request("OPTIONS", f"sip:127.0.0.1:{self.port}", sock.getsockname()))
                    sock.settimeout(0.02)
                    if status(sock.recv(65535)):
                        self.started_in = time.monotonic() - began
                        return self
                except socket.timeout:
                    pass
                except ConnectionRefusedError:
                    time.sleep(0.001)
        raise RuntimeError(f"{self.name} did not answer OPTIONS; its last words: {self.last_words()}")

    def last_words(self, n=600):
        try:
            with open(self.log, "rb") as f:
                return f.read()[-n:].decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def alive(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            return status(ask(sock, self.address, request("OPTIONS", f"sip:127.0.0.1:{self.port}", sock.getsockname()), tries=3) or b"") == 200

    def pids(self):
        return family(self.child.pid)

    def stop(self, sig=signal.SIGTERM):
        stop(self.child, sig)


def render(template, target, **values):
    """Fills the @NAME@ places of a file."""
    with open(template) as f:
        text = f.read()
    for key, value in values.items():
        text = text.replace(f"@{key.upper()}@", str(value))
    left = re.findall(r"@[A-Z0-9_]+@", text)
    if left:
        raise RuntimeError(f"{template}: nothing given for {left}")
    with open(target, "w") as f:
        f.write(text)
    return target


def strowger(template, core=None, directory=None, **values):
    """strowger with a configuration made from `template` in a directory of its own; not yet started. `@SIP@` is its port."""
    binary = strowger_binary()
    if binary is None:
        raise RuntimeError("no strowger binary: cargo build --release, or set STROWGER_BIN")
    directory = directory or scratch()
    values.setdefault("sip", free_port())
    config = render(template, os.path.join(directory, "strowger.toml"), **values)
    server = Server("strowger", int(values["sip"]), [binary, "serve", "--config", config], core, directory)
    server.directory, server.config, server.binary = directory, config, binary
    return server


# ---- SIPp -----------------------------------------------------------------------------------------------------------


class Sipp:
    """One SIPp process playing one of the scenarios beside this file (or one given by its full path)."""

    def __init__(self, scenario, port, target=None, core=None, directory=None, extra=()):
        self.directory = directory or scratch()
        path = scenario if os.path.isabs(scenario) else os.path.join(HERE, scenario + ".xml")
        self.stat = os.path.join(self.directory, f"{os.path.basename(scenario)}-{port}-{token(4)}.csv")
        self.errors = self.stat[:-4] + ".err"
        self.screen = self.stat[:-4] + ".out"
        argv = ["sipp"] + ([f"{target[0]}:{target[1]}"] if target else []) + [
            "-sf", path, "-i", "127.0.0.1", "-p", str(port), "-nostdin", "-trace_stat", "-stf", self.stat, "-fd", "1",
            "-trace_err", "-error_file", self.errors, "-cp", str(free_port())]
        with open(self.screen, "wb") as out:
            self.child = start(argv + [str(x) for x in extra], core, cwd=self.directory, stdout=out, stderr=out)
        self.port = port

    def listening(self, patience=5.0):
        """Waits until its UDP port is bound. What is sent there before comes back as an ICMP error, and strowger then leaves a phone alone for a while."""
        deadline = time.monotonic() + patience
        while not udp_bound(self.port):
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"SIPp does not listen on port {self.port}: {self.why()}")
            time.sleep(0.01)
        return self

    def wait(self, timeout):
        """Waits for its end; returns the exit code, None when it did not end in time."""
        try:
            return self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def counts(self):
        """The last line of its statistics as a dictionary of cumulative counters."""
        rows = [line.split(";") for line in _lines(self.stat)]
        if len(rows) < 2:
            return {}
        return dict(zip(rows[0], rows[-1]))

    def count(self, name):
        try:
            return int(float(self.counts().get(f"{name}(C)", 0)))
        except ValueError:
            return 0

    def why(self, n=300):
        """The first lines of its error log, on one line."""
        return " | ".join(line.strip() for line in _lines(self.errors) if line.strip())[:n] or " | ".join(_lines(self.screen)[-3:])[:n]

    def stop(self):
        """Asks for a soft end (statistics are written), then insists."""
        stop(self.child, signal.SIGUSR1, 2)
