"""Every role requests every path of every group from the real nginx, over TLS.

The expected answers are worked out here from docs/serving.md and from the files that the test has
written; not by the policy's own code.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
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
from tasks.serve.nginx import ClientCertificates, Tls
from tasks.serve.nginx_process import Server, serving
from tasks.system.command import run
from tests.kit.refused import refused

ACCESS = Access(groups=["site:acme", "role:java"], binhosts={"java": "role:java"})
USERS = {"anna": ["site:acme"], "jan": ["role:java"], "both": ["site:acme", "role:java"]}
HOLDERS = {"cara": ["site:acme"], "jill": ["role:java"], "each": ["site:acme", "role:java"]}
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
)
# Files that are requested by many spellings of their path; all others by one.
RESPELLED = ("Packages", "one-1-1.gpkg.tar", "layout.conf", "one-1.tar.gz")
PUBLISHED = {
    "/base": "public",
    "/base@role.java": "role:java",
    "/java": "role:java",  # [access.binhosts]: by two names
    "/java@role.java": "role:java",
    "/java@site.acme": "site:acme",
}
MIRRORS = {"public": "public", "site.acme": "site:acme", "role.java": "role:java"}
GROUP_OF = PUBLISHED | {f"/mirror/{name}": group for name, group in MIRRORS.items()}
UNPUBLISHED = ("/base@site.acme",)  # a location without files


def write_site(state: Path) -> dict[str, bytes]:
    """Write the files of a site; returns the content that is served, by URL path."""
    files = {}
    for prefix, group in PUBLISHED.items():
        binhost = state / "binhost" / prefix[1:].partition("@")[0]
        gen = binhost / "gen/1" / group.replace(":", ".")
        for name in (*SIGNED, PACKAGE):
            content = f"{gen.relative_to(state)}/{name} is here".encode()
            files[f"{prefix}/{name}"] = content
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
            files[f"/mirror/{name}/distfiles/{inner}"] = content = f"{name} {inner}".encode()
            (folder / inner).write_bytes(content)
        (folder / ".unnamed.json").write_text("internal")
    (state / "doit.db").write_text("internal")
    return files


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return certificate(tmp_path_factory.mktemp("tls"), "-days", "2")


def openssl(words: str, *paths: str | Path) -> None:
    subprocess.run(["openssl", *words.split(), *paths], check=True, capture_output=True)


def certificate(folder: Path, *dates: str) -> Tls:
    """Make a self-signed certificate for 127.0.0.1."""
    tls = Tls(folder / "cert.pem", folder / "key.pem")
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
        f" -addext subjectAltName=IP:127.0.0.1 {' '.join(dates)}",
        *("-keyout", tls.key, "-out", tls.certificate),
    )
    return tls


def expired_certificate(folder: Path) -> Tls:
    """Make a certificate that was valid for a day in 2020; only openssl-ca(1) takes dates."""
    tls = certificate(folder, "-days", "2")
    request, config = folder / "request.pem", folder / "ca.conf"
    (folder / "index.txt").write_text("")
    config.write_text(
        f"[ca]\ndefault_ca=it\n[it]\ndatabase={folder}/index.txt\nnew_certs_dir={folder}\n"
        "rand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n"
    )
    openssl("req -new -subj /CN=localhost", "-key", tls.key, "-out", request)
    openssl(
        "ca -batch -selfsign -notext -startdate 20200101000000Z -enddate 20200102000000Z",
        *("-config", config, "-keyfile", tls.key, "-in", request, "-out", tls.certificate),
    )
    return tls


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class ServedSite:
    """A running nginx, the content that it serves, and the passwords of its users."""

    nginx: Server
    files: dict[str, bytes]
    passwords: dict[str, str]
    tls: Tls
    folder: Path
    connections: dict[str, http.client.HTTPSConnection] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.nginx.url.removeprefix("https://")

    @property
    def register(self) -> Path:
        return self.folder / "secrets/users.json"

    def connection(self, certificate: str = "") -> http.client.HTTPSConnection:
        """A connection with a client certificate, NAME.pem in the test's folder, or without."""
        if certificate not in self.connections:
            trust = ssl.create_default_context(cafile=str(self.tls.certificate))
            if certificate:
                trust.load_cert_chain(self.folder / f"{certificate}.pem")
            self.connections[certificate] = http.client.HTTPSConnection(
                self.address, timeout=20, context=trust
            )
        return self.connections[certificate]

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
        self.connections.clear()

    def request(
        self,
        path: str,
        user: str = "",
        password: str | None = None,
        method: str = "GET",
        *,
        part: str = "",
        certificate: str = "",
    ) -> Answer:
        """Send one request with this very path; the password is the user's if it is None."""
        connection = self.connection(certificate)
        connection.putrequest(method, path, skip_accept_encoding=True)
        if user:
            pair = f"{user}:{self.passwords.get(user, '') if password is None else password}"
            coded = base64.b64encode(pair.encode()).decode()
            connection.putheader("Authorization", f"Basic {coded}")
        if part:
            connection.putheader("Range", part)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.read(), dict(response.getheaders()))

    def status(self, path: str, user: str = "", password: str | None = None) -> int:
        return self.request(path, user, password).status


def clients(folder: Path) -> ClientCertificates:
    serials = users.serials_by_group(users.read(folder / "secrets/users.json"), ACCESS.groups)
    return ClientCertificates(folder / "clients" / certificates.CA_FILE, serials)


def add_certificate(folder: Path, name: str, groups: list[str]) -> None:
    register, issued = folder / "secrets/users.json", folder / "clients"
    users.add_with_certificate(register, name, groups, ACCESS.groups, folder=issued, days=9)


def write_bad_certificates(folder: Path) -> None:
    """Make certificates that give no access: expired, revoked, of another CA, self-signed."""
    register = folder / "secrets/users.json"
    for name in ("expired", "revoked"):
        add_certificate(folder, name, ["site:acme", "role:java"])
    entries = users.read(register)
    # it is in the list of users all the same
    serial = certificates.issue(folder / "clients", "expired", -1).serial
    register.write_text(register.read_text().replace(entries["expired"].serial, serial))
    (folder / "clients/revoked.pem").rename(folder / "clients/copy.pem")  # the client's own
    users.remove(register, "revoked", folder / "clients")
    with pytest.MonkeyPatch.context() as patch:  # another CA repeats the serial of a valid one
        valid = int(entries["each"].serial, 16)
        patch.setattr(secrets, "randbits", lambda _bits: valid & ~(1 << 126))
        certificates.issue(folder / "other-ca", "foreign", 9)
    tls = certificates.self_signed(folder / "self")
    (folder / "self/self.pem").write_text(tls.key.read_text() + tls.certificate.read_text())


@pytest.fixture(scope="module")
def shared_site(tls: Tls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    folder = tmp_path_factory.mktemp("access")
    files = write_site(folder / "state")
    register = folder / "secrets/users.json"
    passwords = {
        name: users.add_with_password(register, name, groups, ACCESS.groups)
        for name, groups in USERS.items()
    }
    for name, groups in HOLDERS.items():
        add_certificate(folder, name, groups)
    write_bad_certificates(folder)
    password_files = folder / "state/serve/users"
    write_passwords(register, password_files)
    with serving(
        policy.locations(ACCESS, ["base", "java"]),
        folder / "state",
        folder / "nginx",
        tls=tls,
        passwords=password_files,
        clients=clients(folder),
        log=folder / "requests.log",
    ) as server:
        yield ServedSite(server, files, passwords, tls, folder)


@pytest.fixture
def served_site(shared_site: ServedSite) -> Iterator[ServedSite]:
    yield shared_site
    shared_site.close()  # nginx ends a connection that is idle for 75 s


def write_passwords(register: Path, folder: Path) -> None:
    owner = 65534 if os.geteuid() == 0 else os.geteuid()
    folder.parent.mkdir(parents=True, exist_ok=True)
    users.write_password_files(users.read(register), ACCESS.groups, folder, owner)


@dataclass(frozen=True)
class Role:
    """A credential, and the groups that it proves; None if nginx refuses it everywhere."""

    groups: list[str] | None
    user: str = ""
    password: str | None = None  # None: the right one
    certificate: str = ""


ROLES = {
    "nothing": Role([]),
    **{name: Role(groups, user=name) for name, groups in USERS.items()},
    "wrong password": Role([], "anna", "wrong"),
    "empty password": Role([], "anna", ""),
    "unknown user": Role([], "nobody", "x"),
    "user in capitals": Role([], "ANNA", "x"),
    "user of a certificate": Role([], "jill", ""),
    **{name: Role(groups, certificate=f"clients/{name}") for name, groups in HOLDERS.items()},
    "expired": Role(None, certificate="clients/expired"),
    "revoked": Role([], certificate="clients/copy"),
    "of another CA": Role(None, certificate="other-ca/foreign"),
    "self-signed": Role(None, certificate="self/self"),
    "password and certificate": Role(["site:acme", "role:java"], "anna", None, "clients/jill"),
    "wrong password and certificate": Role(["role:java"], "anna", "wrong", "clients/jill"),
    "password and revoked": Role(["site:acme"], "anna", None, "clients/copy"),
    "password and expired": Role(None, "both", None, "clients/expired"),
    "password and of another CA": Role(None, "both", None, "other-ca/foreign"),
}


def spellings(path: str) -> Iterator[str]:
    """Other spellings of a path: some mean the same path, some do not."""
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
        for prefix in (*PUBLISHED, *UNPUBLISHED)
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


def normalised(path: str) -> str:
    """Normalise a path (RFC 3986): without query, decoded once, dots and slashes resolved.

    "" for an invalid one: badly encoded, with a NUL, or above the top.
    """
    path = re.sub(r"^https?://[^/]*", "", path)
    plain = urllib.parse.unquote(path.partition("?")[0])
    steps = [step for step in plain.split("/") if step not in ("", ".")]
    depth = [len(steps[:n]) - 2 * steps[:n].count("..") for n in range(len(steps) + 1)]
    if not path.startswith("/") or "%zz" in plain or "\0" in plain or min(depth) < 0:
        return ""
    is_folder = plain.endswith(("/", "/.", "/.."))
    short = posixpath.normpath("/" + plain.lstrip("/"))
    return short + "/" if is_folder and short != "/" else short


def group_at(path: str) -> str:
    """The group of the location that has this path; "" for none."""
    for prefix, group in GROUP_OF.items():
        if path.startswith(prefix + "/"):
            return group
    for prefix in UNPUBLISHED:
        if path.startswith(prefix + "/"):
            return prefix.split("@")[1].replace(".", ":")
    return ""


def expected(path: str, groups: list[str] | None, files: dict[str, bytes]) -> int:
    """The answer according to docs/serving.md."""
    plain = normalised(path)
    if groups is None and plain:
        return 401
    group = group_at(plain)
    if groups is not None and group not in ("", "public") and group not in groups:
        return 401
    return 200 if plain in files else 404


@pytest.mark.parametrize("role", ROLES.values(), ids=list(ROLES))
def test_every_path_answers_each_role_as_documented(served_site: ServedSite, role: Role) -> None:
    counts: dict[int, int] = {}
    wrong = []
    files = served_site.files
    respelled = (way for path in files if path.endswith(RESPELLED) for way in spellings(path))
    for path in dict.fromkeys([*files, *respelled, *INTERNAL]):
        answer = served_site.request(path, role.user, role.password, certificate=role.certificate)
        status = expected(path, role.groups, files)
        counts[status] = counts.get(status, 0) + 1
        if answer.status != status or (status == 200 and answer.body != files[normalised(path)]):
            wrong.append((path, answer.status, status))
        assert b"internal" not in answer.body
    assert wrong == []
    if role.groups is None:
        assert counts[401] > 500
        assert 200 not in counts
        return
    assert counts[200] > 50
    assert counts[404] > 50
    assert (401 in counts) == (set(role.groups) != {"site:acme", "role:java"})


PARTS = {
    "bytes=2-4": 206,
    "bytes=3-": 206,
    "bytes=-2": 206,
    "bytes=2-99999": 206,
    "bytes=0-0,2-2": 200,  # several ranges at once: the whole file, not a bomb
    "lines=1-2": 200,
    "bytes=": 200,
    "bytes=99999-": 404,
    "bytes=5-2": 404,
    "bytes=x": 404,
    "bytes=-": 404,
}


@pytest.mark.parametrize("role", ROLES.values(), ids=list(ROLES))
def test_a_range_of_each_file_is_for_the_same_roles(served_site: ServedSite, role: Role) -> None:
    def request(path: str, method: str = "GET", part: str = "") -> Answer:
        return served_site.request(
            path, role.user, role.password, method, part=part, certificate=role.certificate
        )

    for number, (path, content) in enumerate(served_site.files.items()):
        part, status = [*PARTS.items()][number % len(PARTS)]
        allowed = expected(path, role.groups, served_site.files) == 200
        answer = request(path, part=part)
        assert answer.status == (status if allowed else 401), (path, part)
        assert (answer.body == content) == (allowed and status == 200), (path, part)
        head = request(path, "HEAD")
        assert (head.status, head.body) == (200 if allowed else 401, b"")


def test_every_kind_of_range_answers_as_documented(served_site: ServedSite) -> None:
    path, content = next(iter(served_site.files.items()))
    for part, status in PARTS.items():
        answer = served_site.request(path, part=part)
        assert answer.status == status, part
        assert status != 206 or (answer.body in content and answer.body != content), part


METHODS = ["POST", "PUT", "DELETE", "PROPFIND", "MKCOL", "OPTIONS", "TRACE", "PATCH", "BREW"]


@pytest.mark.parametrize("method", METHODS)
def test_no_role_can_write(served_site: ServedSite, method: str) -> None:
    for role in (Role([]), Role([], "jan"), Role([], certificate="clients/each")):

        def status(path: str, role: Role = role) -> int:
            return served_site.request(
                path, role.user, method=method, certificate=role.certificate
            ).status

        for path, content in served_site.files.items():
            assert status(path) == 403, path
            assert served_site.request(path, "both").body == content
        assert status("/nothing") == (403 if method == "TRACE" else 404)


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


@pytest.mark.parametrize(("request_bytes", "status"), MALFORMED.items(), ids=lambda v: str(v)[:50])
def test_malformed_request_is_refused(
    served_site: ServedSite, request_bytes: bytes, status: int
) -> None:
    trust = ssl.create_default_context(cafile=str(served_site.tls.certificate))
    line = status_line(served_site, request_bytes, trust)
    assert line.startswith(b"HTTP/1.1 %d " % status)


def test_request_without_tls_is_forbidden(served_site: ServedSite) -> None:
    line = status_line(served_site, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", None)
    assert line.startswith(b"HTTP/1.1 403 ")


def status_line(site: ServedSite, request: bytes, trust: ssl.SSLContext | None) -> bytes:
    """Send these bytes; returns the first line of the answer."""
    host, port = site.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        stream = trust.wrap_socket(plain, server_hostname=host) if trust else plain
        with contextlib.closing(stream):
            stream.sendall(request)
            return stream.recv(4096).split(b"\r\n")[0]


def test_headers_tell_caches_and_browsers_what_to_do(served_site: ServedSite) -> None:
    def cache_control(path: str) -> str:
        return served_site.request(path, "both").headers["Cache-Control"]

    assert cache_control("/base/Packages") == "public, no-cache"
    assert cache_control("/java/Packages.gz") == "private, no-cache"
    assert cache_control(f"/base/{PACKAGE}") == "public, max-age=31536000, immutable"
    assert cache_control(f"/java/{PACKAGE}") == "private, max-age=31536000, immutable"
    assert cache_control("/mirror/public/distfiles/layout.conf") == "public, no-cache"
    restricted = "/mirror/role.java/distfiles/4f/one-1.tar.gz"
    assert cache_control(restricted).startswith("private, max-age")
    assert "Cache-Control" not in served_site.request("/java/Packages").headers
    for path in ("/base/Packages", f"/java/{PACKAGE}"):
        headers = served_site.request(path, "both").headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "default-src 'none'"
        assert headers["Server"] == "nginx"


def test_changed_password_file_counts_at_once(served_site: ServedSite) -> None:
    register, path = served_site.register, "/java/Packages"
    folder = served_site.folder / "state/serve/users"
    password = users.add_with_password(register, "late", ["role:java"], ACCESS.groups)
    assert served_site.status(path, "late", password) == 401
    write_passwords(register, folder)
    assert served_site.status(path, "late", password) == 200
    newer = users.add_with_password(register, "late", ["role:java"], ACCESS.groups)
    write_passwords(register, folder)
    assert served_site.status(path, "late", password) == 401
    assert served_site.status(path, "late", newer) == 200
    users.remove(register, "late")
    write_passwords(register, folder)
    assert served_site.status(path, "late", newer) == 401


def test_password_is_stored_nowhere(served_site: ServedSite) -> None:
    texts = [f.read_text(errors="replace") for f in served_site.folder.rglob("*") if f.is_file()]
    assert any("$6$" in text for text in texts)
    for password in served_site.passwords.values():
        assert len(password) >= 43
        assert not any(password in text for text in texts)
    assert served_site.register.stat().st_mode & 0o777 == 0o600
    assert served_site.register.parent.stat().st_mode & 0o777 == 0o700


def test_worker_is_not_root(served_site: ServedSite, needs_root: None) -> None:  # noqa: ARG001
    master = int((served_site.folder / "nginx/nginx.pid").read_text())
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    assert children
    for child in children:
        status = Path(f"/proc/{child}/status").read_text()
        uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
        assert set(uids) == {"65534"}
        assert "CapEff:\t0000000000000000" in status


def test_wget_reads_the_password_from_netrc(served_site: ServedSite, tmp_path: Path) -> None:
    """As docs/serving.md tells a client: wget(1) finds the password by HOME, not in a URL."""
    if shutil.which("wget") is None:
        pytest.skip("needs wget")
    target, path = tmp_path / "file", "/mirror/role.java/distfiles/one-1.tar.gz"

    def fetch(user: str) -> int:
        line = f"machine 127.0.0.1 login {user} password {served_site.passwords[user]}\n"
        (tmp_path / ".netrc").write_text(line)
        target.unlink(missing_ok=True)
        words = ["-q", "-t", "1", f"--ca-certificate={served_site.tls.certificate}"]
        return subprocess.run(
            ["wget", *words, "-O", target, served_site.nginx.url + path],
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
            check=False,
            timeout=60,
        ).returncode

    assert fetch("jan") == 0
    assert target.read_bytes() == served_site.files[path]
    assert fetch("anna") == 6  # wget(1): authentication failure


def test_download_of_a_deleted_file_is_completed(served_site: ServedSite) -> None:
    folder = served_site.folder / "state/binhost/base/gen/1/public/app-misc/one"
    file, path = folder / "big-1-1.gpkg.tar", "/base/app-misc/one/big-1-1.gpkg.tar"
    content = os.urandom(8 << 20)
    file.write_bytes(content)
    trust = ssl.create_default_context(cafile=str(served_site.tls.certificate))
    connection = http.client.HTTPSConnection(served_site.address, context=trust)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        first = response.read(1000)
        file.unlink()
        assert first + response.read() == content
    assert served_site.status(path) == 404


def test_previous_generation_is_for_the_same_group(served_site: ServedSite) -> None:
    top = served_site.folder / "state/binhost/java"
    (top / "gen/0/role.java/app-misc/one").mkdir(parents=True)
    (top / "gen/0/role.java/app-misc/one/old-1-1.gpkg.tar").write_bytes(b"old")
    (top / "previous").symlink_to("gen/0")
    path = "/java/app-misc/one/old-1-1.gpkg.tar"
    assert served_site.request(path, "jan").body == b"old"
    assert served_site.status(path, "anna") == served_site.status(path) == 401


def test_withdrawn_binhost_is_gone_at_once(served_site: ServedSite) -> None:
    current = served_site.folder / "state/binhost/base/current"
    aside = current.with_name("aside")
    current.rename(aside)
    try:
        assert served_site.status("/base/Packages") == 404
    finally:
        aside.rename(current)
    assert served_site.status("/base/Packages") == 200


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
    old = expired_certificate(own)
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
    restricted = policy.mirror_location("role:java")
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


def test_printed_block_can_be_included_in_other_configuration(tmp_path: Path, tls: Tls) -> None:
    """nginx accepts the output of `doit serve --print` of two sites inside of http { }."""
    locations = policy.locations(ACCESS, ["base", "java"])
    holders = ClientCertificates(tls.certificate, {"role:java": ["1F", "2F"], "site:acme": []})
    passwords = str(tmp_path / "users")
    block = nginx.server_block(locations, str(tmp_path), passwords, "127.0.0.1:8443", tls)
    second = nginx.server_block(
        locations, str(tmp_path / "b"), passwords, "127.0.0.1:8444", tls, clients=holders
    )
    assert second.count('"1F" off; "2F" off;') == 1
    file = tmp_path / "nginx.conf"
    file.write_text(f"pid {tmp_path}/pid; events {{ }} http {{ {block} {second} }}")
    run("nginx", "-t", "-q", "-e", tmp_path / "log", "-c", file, timeout=60)
    assert "user root" not in block
