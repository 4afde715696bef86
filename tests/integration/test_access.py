"""Each role asks for each path of each group, of the real nginx, over TLS.

What should come of it is worked out here from the words of docs/serving.md, and from the files that
the test itself has laid down; not from the policy's own code.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import posixpath
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tasks.config.access import Access
from tasks.errors import BinmillError, HostLacks
from tasks.serve import certificates, nginx, policy, users
from tasks.serve.nginx import Clients, Tls
from tasks.serve.nginx_process import Server as Nginx
from tasks.serve.nginx_process import running, serving
from tasks.system.files import write_atomic
from tests.kit.refused import refused

ACCESS = Access(groups=["site:acme", "role:java"], binhosts={"java": "role:java"})
USERS = {"anna": ["site:acme"], "jan": ["role:java"], "both": ["site:acme", "role:java"]}
HOLDERS = {"cara": ["site:acme"], "jill": ["role:java"], "each": ["site:acme", "role:java"]}
# path -> group and content, of all that is to be had; by hand
PACKAGE = "app-misc/one/one-1-1.gpkg.tar"
SIGNED = (
    "Packages",
    "Packages.gz",
    "Packages.asc",
    "Packages.gz.asc",
    "release.json",
    "release.json.asc",
    "provenance.jsonl",
    "sbom.cdx.json",
    "client.tar",
    "client.tar",
)
# What is asked for in many ways; all else of a view is asked for as it is.
TWISTED = ("Packages", "one-1-1.gpkg.tar", "layout.conf", "one-1.tar.gz")
PUBLISHED = {
    "/base": "public",
    "/base@role.java": "role:java",
    "/java": "role:java",  # its whole binhost is: by two names
    "/java@role.java": "role:java",
    "/java@site.acme": "site:acme",
}
MIRRORS = {"public": "public", "site.acme": "site:acme", "role.java": "role:java"}
GROUP_OF = PUBLISHED | {f"/mirror/{name}": group for name, group in MIRRORS.items()}
SPARE = ("/base@site.acme",)  # a group's view which was not published


def lay_down(state: Path) -> dict[str, bytes]:
    """A site's files; returns what may be asked for, by URL path."""
    there = {}
    for prefix, group in PUBLISHED.items():
        binhost = state / "binhost" / prefix[1:].partition("@")[0]
        gen = binhost / "gen/1" / group.replace(":", ".")
        for name in (*SIGNED, PACKAGE):
            content = f"{gen.relative_to(state)}/{name} is here".encode()
            there[f"{prefix}/{name}"] = content
            (gen / name).parent.mkdir(parents=True, exist_ok=True)
            (gen / name).write_bytes(content)
        for name in ("generation.json", ".hidden", "app-misc/one/.secret.gpkg.tar", "note.txt"):
            (gen / name).write_text("internal")
    for binhost in (state / "binhost").iterdir():
        (binhost / "gen/1/generation.json").write_text("internal")
        (binhost / "current").symlink_to("gen/1")
        (binhost / "published.json").write_text("internal")
    for name in MIRRORS:
        folder = state / "mirror" / name / "distfiles"
        (folder / "4f").mkdir(parents=True)
        for inner in ("layout.conf", "one-1.tar.gz", "4f/one-1.tar.gz"):
            there[f"/mirror/{name}/distfiles/{inner}"] = content = f"{name} {inner}".encode()
            (folder / inner).write_bytes(content)
        (folder / ".unnamed.json").write_text("internal")
    (state / "doit.db").write_text("internal")
    return there


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return certificate(tmp_path_factory.mktemp("tls"), "-days", "2")


def certificate(folder: Path, *dates: str) -> Tls:
    made = Tls(folder / "cert.pem", folder / "key.pem")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            *dates,
            "-keyout",
            made.key,
            "-out",
            made.certificate,
        ],
        check=True,
        capture_output=True,
    )
    return made


def expired(folder: Path) -> Tls:
    """A certificate that was good for a day in 2020; only openssl-ca(1) can be told a date."""
    made = certificate(folder, "-days", "2")
    (folder / "index.txt").write_text("")
    (folder / "ca.conf").write_text(
        f"[ca]\ndefault_ca=it\n[it]\ndatabase={folder}/index.txt\nnew_certs_dir={folder}\n"
        "rand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
    )
    subprocess.run(
        [
            "openssl",
            "req",
            "-new",
            "-key",
            made.key,
            "-subj",
            "/CN=localhost",
            "-out",
            folder / "request.pem",
        ],
        check=True,
        capture_output=True,
    )
    subprocess.run(
        [
            "openssl",
            "ca",
            "-batch",
            "-selfsign",
            "-config",
            folder / "ca.conf",
            "-keyfile",
            made.key,
            "-in",
            folder / "request.pem",
            "-startdate",
            "20200101000000Z",
            "-enddate",
            "20200102000000Z",
            "-notext",
            "-out",
            made.certificate,
        ],
        check=True,
        capture_output=True,
    )
    return made


@dataclass(frozen=True)
class Server:
    """A running server: where, its files, its users' passwords."""

    nginx: Nginx
    there: dict[str, bytes]
    passwords: dict[str, str]
    tls: Tls
    folder: Path
    lines: dict[str, http.client.HTTPSConnection] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.nginx.url

    def line(self, certificate: str) -> http.client.HTTPSConnection:
        """A connection with a client certificate, NAME.pem in the test's folder, or without."""
        if certificate not in self.lines:
            trust = ssl.create_default_context(cafile=str(self.tls.certificate))
            if certificate:
                trust.load_cert_chain(self.folder / f"{certificate}.pem")
            host = self.url.removeprefix("https://")
            self.lines[certificate] = http.client.HTTPSConnection(host, timeout=20, context=trust)
        return self.lines[certificate]

    def hang_up(self) -> None:
        for line in self.lines.values():
            line.close()
        self.lines.clear()

    def ask(
        self,
        path: str,
        user: str = "",
        password: str | None = None,
        method: str = "GET",
        *,
        part: str = "",
        certificate: str = "",
    ) -> tuple[int, bytes, dict[str, str]]:
        """One request, its path sent as it is."""
        line = self.line(certificate)
        line.putrequest(method, path, skip_accept_encoding=True)
        if user:
            pair = f"{user}:{self.passwords.get(user, '') if password is None else password}"
            coded = base64.b64encode(pair.encode()).decode()
            line.putheader("Authorization", f"Basic {coded}")
        if part:
            line.putheader("Range", part)
        line.endheaders()
        answer = line.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())


def clients(folder: Path) -> Clients:
    held = users.serials(users.read(folder / "secrets/users.json"), ACCESS.groups)
    return Clients(folder / "ours" / certificates.AUTHORITY, held)


def hold(folder: Path, name: str, groups: list[str]) -> None:
    users.add_certificate(
        folder / "secrets/users.json", name, groups, ACCESS.groups, folder=folder / "ours", days=9
    )


def bad_certificates(folder: Path) -> None:
    """Every kind that must not open a door: expired, revoked, of another CA, of nobody's."""
    register = folder / "secrets/users.json"
    for name in ("old", "gone"):
        hold(folder, name, ["site:acme", "role:java"])
    held = users.read(register)
    held["old"]["serial"] = certificates.issue(folder / "ours", "old", -1).serial  # expired
    write_atomic(register, json.dumps(held))
    (folder / "ours/gone.pem").rename(folder / "ours/kept.pem")  # the client's own copy
    users.remove(register, "gone", folder / "ours")
    with pytest.MonkeyPatch.context() as patch:  # another CA, that gives the serial of a good one
        good = int(held["each"]["serial"], 16)
        patch.setattr(secrets, "randbits", lambda _bits: good & ~(1 << 126))
        certificates.issue(folder / "theirs", "foreign", 9)
    made = certificates.throwaway(folder / "self")
    itself = made.key.read_text() + made.certificate.read_text()
    (folder / "self/self.pem").write_text(itself)


@pytest.fixture(scope="module")
def server(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("access")
    there = lay_down(folder / "state")
    register = folder / "secrets/users.json"
    passwords = {
        name: users.add(register, name, groups, ACCESS.groups) for name, groups in USERS.items()
    }
    for name, groups in HOLDERS.items():
        hold(folder, name, groups)
    bad_certificates(folder)
    store = folder / "state/serve/users"
    write_passwords(register, store)
    doors = policy.doors(ACCESS, ["base", "java"])
    with running(
        doors,
        folder / "state",
        folder / "nginx",
        tls=tls,
        passwords=store,
        clients=clients(folder),
        log=folder / "requests.log",
    ) as made:
        server = Server(made, there, passwords, tls, folder)
        yield server
        server.hang_up()


def write_passwords(register: Path, store: Path) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    store.parent.mkdir(parents=True, exist_ok=True)
    users.write_password_files(users.read(register), ACCESS.groups, store, owner)


@dataclass(frozen=True)
class Who:
    """A credential, and the groups in which it has been proven to be; None: refused anywhere."""

    groups: list[str] | None
    user: str = ""
    password: str | None = None  # None: the right one
    certificate: str = ""


ROLES = {
    "nothing": Who([]),
    **{name: Who(groups, user=name) for name, groups in USERS.items()},
    "a wrong password": Who([], "anna", "wrong"),
    "an empty password": Who([], "anna", ""),
    "nobody's password": Who([], "nobody", "x"),
    "a name in capitals": Who([], "ANNA", "x"),
    "the name of a certificate": Who([], "jill", ""),
    **{name: Who(groups, certificate=f"ours/{name}") for name, groups in HOLDERS.items()},
    "expired": Who(None, certificate="ours/old"),
    "revoked": Who([], certificate="ours/kept"),
    "of another CA": Who(None, certificate="theirs/foreign"),
    "of itself": Who(None, certificate="self/self"),
    "both": Who(["site:acme", "role:java"], "anna", None, "ours/jill"),
    "a certificate and a wrong password": Who(["role:java"], "anna", "wrong", "ours/jill"),
    "a password and revoked": Who(["site:acme"], "anna", None, "ours/kept"),
    "a password and expired": Who(None, "both", None, "ours/old"),
    "a password and of another CA": Who(None, "both", None, "theirs/foreign"),
}


def ways(path: str) -> Iterator[str]:
    """A path said in other ways; those that mean the same and those that do not."""
    top, _, rest = path[1:].partition("/")
    last = posixpath.basename(path)
    yield path
    yield path.replace("a", "%61")
    yield path.replace("/", "%2f").replace("%2f", "/", 1)
    yield path.replace("/", "//")
    yield f"/{top}/./{rest}"
    yield f"/base/../{top}/{rest}"
    yield f"/base/%2e%2e/{top}/{rest}"
    yield f"/base/..%2f{top}/{rest}"
    yield f"/mirror/public/distfiles/../../../{top}/{rest}"
    yield f"/base/%252e%252e/{top}/{rest}"
    yield f"/{top}/x/..%2F{rest}"
    yield path.upper()
    yield f"/{top.upper()}/{rest}"
    yield path.replace(last, last.upper())
    yield f"{path}/"
    yield f"{path}%0a"
    yield f"{path}%20"
    yield f"{path}."
    yield f"{path}~"
    yield f"{path}?x=../../doit.db"
    yield f"{path};x"
    yield f"{path}%3fx"
    yield f"{path}%00"
    yield f"/{top}/%00/../{rest}"
    yield f"{path}%zz"
    yield f"/..{path}"
    yield f"/%2e%2e{path}"
    yield path.replace("/", "\\")
    yield f"/{top}/x\\..\\{rest}"
    yield f"/base/..%5c{top}/{rest}"
    yield f"/base/%252e%252e%252f{top}/{rest}"
    yield f"http://other.example{path}"
    yield f"https://other.example/base/../{top}//{rest}"
    yield posixpath.dirname(path)
    yield posixpath.dirname(path) + "/"


INTERNAL = [
    "/",
    "/doit.db",
    "/secrets/users.json",
    "/serve/users/role.java",
    "/binhost/base/gen/1/public/Packages",
    "/binhost/base/current/public/Packages",
    "/mirror/",
    "/mirror/role.java",
    *(
        f"{prefix}/{inner}"
        for prefix in (*PUBLISHED, *SPARE)
        for inner in (
            "",
            "generation.json",
            ".hidden",
            "note.txt",
            "published.json",
            "../published.json",
            "../generation.json",
            "current/public/Packages",
            "public/Packages",
            "gen/1/public/Packages",
            "app-misc/one/.secret.gpkg.tar",
            "%2e%2e/gen/1/public/Packages",
            "app-misc/one/none-1-1.gpkg.tar",
        )
    ),
    *(f"/mirror/{name}/distfiles/.unnamed.json" for name in MIRRORS),
    *(f"/mirror/{name}/distfiles/none" for name in MIRRORS),
    *(f"/mirror/{name}/" for name in MIRRORS),
]


def meant(path: str) -> str:
    """What a request's path means (RFC 3986): no query, decoded once, dots and slashes gone.

    "" for what is none: what is badly encoded, has a NUL, or leads above the top.
    """
    path = re.sub(r"^https?://[^/]*", "", path)
    plain = urllib.parse.unquote(path.partition("?")[0])
    steps = [step for step in plain.split("/") if step not in ("", ".")]
    depth = [len(steps[:n]) - 2 * steps[:n].count("..") for n in range(len(steps) + 1)]
    if not path.startswith("/") or "%zz" in plain or "\0" in plain or min(depth) < 0:
        return ""
    ended = plain.endswith(("/", "/.", "/.."))
    short = posixpath.normpath("/" + plain.lstrip("/"))
    return short + "/" if ended and short != "/" else short


def group_at(path: str) -> str:
    """The group whose path something is below; "" for none's."""
    for prefix, group in GROUP_OF.items():
        if path.startswith(prefix + "/"):
            return group
    for prefix in SPARE:
        if path.startswith(prefix + "/"):
            return prefix.split("@")[1].replace(".", ":")
    return ""


def expected(path: str, groups: list[str] | None, there: dict[str, bytes]) -> int:
    """The answer by docs/serving.md."""
    plain = meant(path)
    if groups is None and plain:
        return 401
    group = group_at(plain)
    if groups is not None and group not in ("", "public") and group not in groups:
        return 401
    return 200 if plain in there else 404


@pytest.mark.parametrize("who", ROLES.values(), ids=list(ROLES))
def test_the_matrix(server: Server, who: Who) -> None:
    seen: dict[int, int] = {}
    wrong = []
    twisted = (w for p in server.there if p.endswith(TWISTED) for w in ways(p))
    for path in dict.fromkeys([*server.there, *twisted, *INTERNAL]):
        status, body, _ = server.ask(path, who.user, who.password, certificate=who.certificate)
        wanted = expected(path, who.groups, server.there)
        seen[wanted] = seen.get(wanted, 0) + 1
        if status != wanted or (status == 200 and body != server.there[meant(path)]):
            wrong.append((path, status, wanted))
        assert b"internal" not in body
    assert wrong == []
    if who.groups is None:
        assert seen[401] > 500
        assert 200 not in seen
        return
    assert seen[200] > 50
    assert seen[404] > 50
    assert (401 in seen) == (set(who.groups) != {"site:acme", "role:java"})


PARTS = {
    "bytes=2-4": 206,
    "bytes=3-": 206,
    "bytes=-2": 206,
    "bytes=2-99999": 206,
    "bytes=0-0,2-2": 200,  # of many parts at once: the whole, not a bomb
    "lines=1-2": 200,
    "bytes=": 200,
    "bytes=99999-": 404,
    "bytes=5-2": 404,
    "bytes=x": 404,
    "bytes=-": 404,
}


@pytest.mark.parametrize("who", ROLES.values(), ids=list(ROLES))
def test_a_part_of_each_file(server: Server, who: Who) -> None:
    for number, (path, content) in enumerate(server.there.items()):
        part, wanted = [*PARTS.items()][number % len(PARTS)]
        allowed = expected(path, who.groups, server.there) == 200
        status, body, _ = server.ask(
            path, who.user, who.password, part=part, certificate=who.certificate
        )
        assert status == (wanted if allowed else 401), (path, part)
        assert (body == content) == (allowed and wanted == 200), (path, part)
        status, body, _ = server.ask(
            path, who.user, who.password, "HEAD", certificate=who.certificate
        )
        assert (status, body) == (200 if allowed else 401, b"")


def test_every_part(server: Server) -> None:
    path, content = next(iter(server.there.items()))
    for part, wanted in PARTS.items():
        status, body, _ = server.ask(path, part=part)
        assert status == wanted, part
        assert status != 206 or (body in content and body != content), part


METHODS = ["POST", "PUT", "DELETE", "PROPFIND", "MKCOL", "OPTIONS", "TRACE", "PATCH", "BREW"]


@pytest.mark.parametrize("method", METHODS)
def test_nobody_writes(server: Server, method: str) -> None:
    for who in (Who([]), Who([], "jan"), Who([], certificate="ours/each")):
        for path, content in server.there.items():
            asked = server.ask(path, who.user, method=method, certificate=who.certificate)
            assert asked[0] == 403, path
            assert server.ask(path, "both")[1] == content
        nothing = server.ask("/nothing", who.user, method=method, certificate=who.certificate)
        assert nothing[0] == (403 if method == "TRACE" else 404)


MALFORMED = {
    b"GET /java/Packages HTTP/1.1\r\n\r\n": 404,  # no Host
    b"GET /java/Packages HTTP/1.1\r\nHost: a/b\r\n\r\n": 404,
    b"GET /java/Packages HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": 404,
    b"GET /java/Pack\0ages HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"GET /java /Packages HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"get /java/Packages HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"GET /java/Packages HTTP/9.9\r\nHost: a\r\n\r\n": 403,
    b"GET /java/Packages HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40000 + b"\r\n\r\n": 403,
    b"PUT /java/Packages HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n": 403,
    b"POST /java/Packages HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n": 403,
    b"GET /java/Packages HTTP/1.0\r\n\r\n": 401,
}


@pytest.mark.parametrize(("sent", "wanted"), MALFORMED.items(), ids=lambda v: str(v)[:50])
def test_what_is_no_request(server: Server, sent: bytes, wanted: int) -> None:
    trust = ssl.create_default_context(cafile=str(server.tls.certificate))
    assert said(server, sent, trust).startswith(b"HTTP/1.1 %d " % wanted)


def test_what_is_not_even_tls(server: Server) -> None:
    assert said(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None).startswith(b"HTTP/1.1 403 ")


def said(server: Server, sent: bytes, trust: ssl.SSLContext | None) -> bytes:
    """The first line of what comes back."""
    host, port = server.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        line = trust.wrap_socket(plain, server_hostname=host) if trust else plain
        with contextlib.closing(line):
            line.sendall(sent)
            return line.recv(4096).split(b"\r\n")[0]


def test_what_may_be_kept_and_by_whom(server: Server) -> None:
    def kept(path: str) -> str:
        return server.ask(path, "both")[2]["Cache-Control"]

    assert kept("/base/Packages") == "public, no-cache"
    assert kept("/java/Packages.gz") == "private, no-cache"
    assert kept(f"/base/{PACKAGE}") == "public, max-age=31536000, immutable"
    assert kept(f"/java/{PACKAGE}") == "private, max-age=31536000, immutable"
    assert kept("/mirror/public/distfiles/layout.conf") == "public, no-cache"
    assert kept("/mirror/role.java/distfiles/4f/one-1.tar.gz").startswith("private, max-age")
    assert "Cache-Control" not in server.ask("/java/Packages")[2]
    for path in ("/base/Packages", f"/java/{PACKAGE}"):
        headers = server.ask(path, "both")[2]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'"
        assert headers["Server"] == "nginx"


def test_a_change_of_users_counts_at_once(server: Server) -> None:
    register = server.folder / "secrets/users.json"
    store = server.folder / "state/serve/users"
    password = users.add(register, "late", ["role:java"], ACCESS.groups)
    assert server.ask("/java/Packages", "late", password)[0] == 401
    write_passwords(register, store)
    assert server.ask("/java/Packages", "late", password)[0] == 200
    newer = users.add(register, "late", ["role:java"], ACCESS.groups)
    write_passwords(register, store)
    assert server.ask("/java/Packages", "late", password)[0] == 401
    assert server.ask("/java/Packages", "late", newer)[0] == 200
    users.remove(register, "late")
    write_passwords(register, store)
    assert server.ask("/java/Packages", "late", newer)[0] == 401


def test_a_password_is_kept_nowhere(server: Server) -> None:
    kept = [f.read_text(errors="replace") for f in server.folder.rglob("*") if f.is_file()]
    assert any("$6$" in text for text in kept)
    for password in server.passwords.values():
        assert len(password) >= 43
        assert not any(password in text for text in kept)
    assert (server.folder / "secrets/users.json").stat().st_mode & 0o777 == 0o600
    assert (server.folder / "secrets").stat().st_mode & 0o777 == 0o700


def test_the_worker_is_not_root(server: Server, needs_root: None) -> None:  # noqa: ARG001
    master = int((server.folder / "nginx/nginx.pid").read_text())
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    assert children
    for child in children:
        said = Path(f"/proc/{child}/status").read_text()
        uids = next(line for line in said.splitlines() if line.startswith("Uid:")).split()[1:]
        assert set(uids) == {"65534"}
        assert "CapEff:\t0000000000000000" in said


def test_a_fetcher_with_a_netrc(server: Server, tmp_path: Path) -> None:
    """As docs/serving.md tells a client: wget(1) finds the password by HOME, in no URL."""
    if shutil.which("wget") is None:
        pytest.skip("needs wget")
    netrc = tmp_path / ".netrc"

    def fetch(user: str, path: str) -> int:
        netrc.write_text(f"machine 127.0.0.1 login {user} password {server.passwords[user]}\n")
        (tmp_path / "got").unlink(missing_ok=True)
        return subprocess.run(
            [
                "wget",
                "-q",
                "-t",
                "1",
                f"--ca-certificate={server.tls.certificate}",
                "-O",
                tmp_path / "got",
                server.url + path,
            ],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            check=False,
            timeout=60,
        ).returncode

    path = "/mirror/role.java/distfiles/one-1.tar.gz"
    assert fetch("jan", path) == 0
    assert (tmp_path / "got").read_bytes() == server.there[path]
    assert fetch("anna", path) == 6  # wget(1): the user was refused


def test_a_slow_download_outlives_its_file(server: Server) -> None:
    """A generation is deleted while somebody downloads from it: he gets all of it."""
    path = server.folder / "state/binhost/base/gen/1/public/app-misc/one/big-1-1.gpkg.tar"
    content = os.urandom(8 << 20)
    path.write_bytes(content)
    trust = ssl.create_default_context(cafile=str(server.tls.certificate))
    line = http.client.HTTPSConnection(server.url.removeprefix("https://"), context=trust)
    with contextlib.closing(line):
        line.request("GET", "/base/app-misc/one/big-1-1.gpkg.tar")
        answer = line.getresponse()
        begun = answer.read(1000)
        path.unlink()
        assert begun + answer.read() == content
    assert server.ask("/base/app-misc/one/big-1-1.gpkg.tar")[0] == 404


def test_an_earlier_generation_is_for_the_same_group(server: Server) -> None:
    top = server.folder / "state/binhost/java"
    (top / "gen/0/role.java/app-misc/one").mkdir(parents=True)
    (top / "gen/0/role.java/app-misc/one/old-1-1.gpkg.tar").write_bytes(b"old")
    (top / "previous").symlink_to("gen/0")
    path = "/java/app-misc/one/old-1-1.gpkg.tar"
    assert server.ask(path, "jan")[:2] == (200, b"old")
    assert server.ask(path, "anna")[0] == server.ask(path)[0] == 401


def test_a_binhost_that_is_withdrawn_is_gone_at_once(server: Server) -> None:
    current = server.folder / "state/binhost/base/current"
    aside = current.with_name("aside")
    current.rename(aside)
    try:
        assert server.ask("/base/Packages")[0] == 404
    finally:
        aside.rename(current)
    assert server.ask("/base/Packages")[0] == 200


def start(folder: Path, tls: Tls, worker: str = "nobody") -> None:
    with serving([], folder / "state", folder / "nginx", tls=tls, worker=worker):
        pytest.fail("nginx started")


def test_certificate_that_cannot_be_used_is_refused(tmp_path: Path, tls: Tls) -> None:
    missing, own = tmp_path / "missing.pem", tmp_path / "own"
    for setting, pair in (
        ("certificate", Tls(missing, tls.key)),
        ("certificate_key", Tls(tls.certificate, missing)),
    ):
        with refused(BinmillError, "tls-file-unreadable", path=missing, setting=setting):
            start(tmp_path, pair)
    with refused(BinmillError, "tls-certificate-not-pem", path=tls.key):
        start(tmp_path, Tls(tls.key, tls.key))
    own.mkdir()
    with refused(HostLacks, "nginx-not-started") as mismatch:
        start(tmp_path, Tls(tls.certificate, certificate(own, "-days", "2").key))
    assert "key values mismatch" in str(mismatch.value.fields["reason"])
    assert "\n" not in mismatch.value.message
    old = expired(own)
    with refused(BinmillError, "tls-certificate-expired", path=old.certificate):
        start(tmp_path, old)


def test_worker_that_cannot_be_used_is_refused(
    tmp_path: Path,
    tls: Tls,
    needs_root: None,  # noqa: ARG001
) -> None:
    with refused(HostLacks, "nginx-worker-unknown", user="nosuchuser"):
        start(tmp_path, tls, "nosuchuser")
    with refused(HostLacks, "nginx-worker-is-root", user="root"):
        start(tmp_path, tls, "root")
    (tmp_path / "state").chmod(0o700)
    with refused(BinmillError, "nginx-worker-locked-out", folder=tmp_path / "state"):
        start(tmp_path, tls, "nobody")


def test_restricted_location_without_password_files_is_a_bug(tmp_path: Path) -> None:
    restricted = policy.mirror("role:java")
    with pytest.raises(ValueError), serving([restricted], tmp_path / "state", tmp_path / "nginx"):
        pytest.fail("nginx started")


def test_missing_nginx_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: Tls
) -> None:
    from tasks.system import command

    def locate(program: str, original: Callable[[str], str] = command.locate) -> str:
        return original("no-such-nginx" if program == "nginx" else program)

    monkeypatch.setattr(command, "locate", locate)
    with pytest.raises(HostLacks, match="no-such-nginx"):
        start(tmp_path, tls)


def test_an_administrator_can_include_it(tmp_path: Path, tls: Tls) -> None:
    """`doit serve --print`: the real nginx takes the block inside of http { }."""
    doors = policy.doors(ACCESS, ["base", "java"])
    holders = Clients(tls.certificate, {"role:java": ["1F", "2F"], "site:acme": []})
    block = nginx.server(doors, str(tmp_path), str(tmp_path / "users"), "127.0.0.1:8443", tls)
    more = nginx.server(
        doors, str(tmp_path / "b"), str(tmp_path / "users"), "127.0.0.1:8444", tls, clients=holders
    )
    assert more.count('"1F" off; "2F" off;') == 1
    whole = f"pid {tmp_path}/pid; events {{ }} http {{ {block} {more} }}"
    (tmp_path / "nginx.conf").write_text(whole)
    from tasks.system.command import run

    done = run(
        "nginx", "-t", "-q", "-e", tmp_path / "log", "-c", tmp_path / "nginx.conf", timeout=60
    )
    assert done.returncode == 0
    assert "user root" not in block
