"""What a client's check takes and refuses: dash, the real gpgv, a binhost over loopback HTTP."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.publish import release_manifest
from tests.kit.gpg import YEAR, Gpg

SCRIPT = Path(release_manifest.__file__).with_name("check.sh")
SHELLS = [
    shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])
]


class Quiet(SimpleHTTPRequestHandler):
    """Files, without a word."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("check-keys")
    home.chmod(0o700)
    made = Gpg(home)
    for name in ("good", "other"):
        made.new(name, at=time.time() - YEAR)
    made.new("expired", expires="2d", at=time.time() - YEAR)
    for name in ("good", "other", "expired"):
        (home / f"{name}.gpg").write_bytes(made("--export", made.fingerprint(name)))
    yield made
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


class Binhost:
    """A view as it is published, and a client that checks it."""

    def __init__(self, place: Path, keys: Gpg) -> None:
        self.keys, self.view, self.seen = keys, place / "view", place / "seen/base.public"
        self.view.mkdir()
        self.publish(1000)

    def publish(
        self,
        timestamp: int,
        /,
        *,
        text: str = "",
        who: str = "good",
        age: int = 0,
        how: tuple[str, ...] = ("--detach-sign", "--armor"),
        at: float = 0,
        **told: Any,
    ) -> None:
        raw = (text or f"TIMESTAMP: {timestamp}\n\n").encode()
        (self.view / "Packages").write_bytes(raw)
        (self.view / "Packages.gz").write_bytes(gzip.compress(raw, mtime=0))
        facts = {
            "name": "base",
            "group": "public",
            "generation": timestamp // 1000,
            "timestamp": timestamp,
            "lock": {"tree": {"name": "gentoo", "tag": "x"}},
        }
        release_manifest.write(
            self.view,
            ["Packages", "Packages.gz"],
            {**facts, **told},
            created=int(time.time()) - age * 86400,
            valid_days=30,
        )
        manifest = (self.view / "release.json").read_bytes()
        proof = self.keys.sign(*how, who=who, data=manifest, at=at)
        (self.view / "release.json.asc").write_bytes(proof)

    def flip(self, name: str) -> None:
        raw = bytearray((self.view / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (self.view / name).write_bytes(raw)

    def check(
        self,
        *,
        code: int = 0,
        name: str = "base",
        group: str = "public",
        key: str = "good",
        shell: tuple[str, ...] = ("dash",),
        fingerprint: str = "",
    ) -> str:
        serve = partial(Quiet, directory=str(self.view))
        with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                done = subprocess.run(
                    [
                        *shell,
                        SCRIPT,
                        f"http://127.0.0.1:{server.server_port}/",
                        name,
                        group,
                        fingerprint or self.keys.fingerprint(key),
                        self.keys.home / f"{key}.gpg",
                        self.seen,
                    ],
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                    env={k: os.environ[k] for k in ("PATH", "TMPDIR") if k in os.environ},
                )
            finally:
                server.shutdown()
                thread.join()
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def binhost(tmp_path: Path, keys: Gpg) -> Binhost:
    return Binhost(tmp_path, keys)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_a_good_one_and_then_a_newer_one(binhost: Binhost, shell: list[str]) -> None:
    said = binhost.check(shell=tuple(shell))
    assert said.startswith("check: base for public: generation 1, valid for ")
    first = binhost.seen.read_text()
    assert first.split()[0] == "1000"
    binhost.check(shell=tuple(shell))
    assert binhost.seen.read_text() == first
    binhost.publish(2000)
    assert "generation 2" in binhost.check(shell=tuple(shell))
    assert binhost.seen.read_text().split()[0] == "2000"
    binhost.publish(1999)
    said = binhost.check(shell=tuple(shell), code=1)
    assert "refused: it is older (1999) than what was seen before (2000)" in said
    assert binhost.seen.read_text().split()[0] == "2000"


def test_another_state_under_the_same_time(binhost: Binhost) -> None:
    binhost.check()
    binhost.publish(1000, text="TIMESTAMP: 1000\n\nCPV: a-b/other-1\n\n")
    assert "refused: it is another state under the same time" in binhost.check(code=1)


def test_an_expired_one(binhost: Binhost) -> None:
    binhost.publish(1000, age=31)
    assert "refused: it expired 24 h ago" in binhost.check(code=1)
    assert not binhost.seen.exists()


@pytest.mark.parametrize("name", ["Packages", "Packages.gz", "release.json", "release.json.asc"])
def test_a_flipped_bit(binhost: Binhost, name: str) -> None:
    binhost.flip(name)
    said = binhost.check(code=1)
    assert "refused: " in said
    if name.startswith("Packages"):
        assert f"{name} is not what was signed" in said
    assert not binhost.seen.exists()


@pytest.mark.parametrize("name", ["release.json", "release.json.asc", "Packages", "Packages.gz"])
def test_something_is_missing(binhost: Binhost, name: str) -> None:
    (binhost.view / name).unlink()
    assert f"/{name} could not be fetched" in binhost.check(code=3)
    assert not binhost.seen.exists()


def test_an_empty_signature(binhost: Binhost) -> None:
    (binhost.view / "release.json.asc").write_bytes(b"")
    assert "refused: the manifest is not signed" in binhost.check(code=1)


@pytest.mark.parametrize(
    "more",
    [
        {"who": "other"},
        {"who": "good other"},  # a second signature, of whom nothing is known
        {"how": ("--detach-sign", "--armor", "--digest-algo", "SHA1")},
        {"who": "good", "at": time.time() + 3600},
    ],
    ids=["another key", "two signatures", "SHA-1", "in the future"],
)
def test_a_signature_that_does_not_count(binhost: Binhost, more: dict[str, Any]) -> None:
    binhost.publish(1000, **more)
    assert "refused: the manifest is not signed" in binhost.check(code=1)


def test_an_expired_key(binhost: Binhost) -> None:
    binhost.publish(1000, who="expired", at=time.time() - YEAR + 60)
    assert "refused: the manifest is not signed" in binhost.check(code=1, key="expired")


def test_the_right_key_under_another_fingerprint(binhost: Binhost) -> None:
    said = binhost.check(code=1, fingerprint=binhost.keys.fingerprint("other"))
    assert "refused: the manifest is not signed by " in said


def test_what_was_signed_for_somebody_else(binhost: Binhost) -> None:
    assert "this is the binhost 'base', not 'java'" in binhost.check(code=1, name="java")
    assert "this is for 'public', not for 'role:java'" in binhost.check(code=1, group="role:java")
    binhost.publish(1000, name="java")
    assert "this is the binhost 'java', not 'base'" in binhost.check(code=1)


def test_a_name_deeper_inside_is_not_the_manifests(binhost: Binhost) -> None:
    binhost.publish(1000, name="java", lock={"name": "base", "group": "public"})
    assert "this is the binhost 'java'" in binhost.check(code=1)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"timestamp": "1000"}, ""),
        ({"timestamp": "soon"}, "no timestamp that can be read"),
        ({"timestamp": 10**20}, "no timestamp that can be read"),
    ],
)
def test_odd_numbers(binhost: Binhost, told: dict[str, Any], said: str) -> None:
    binhost.publish(1000, **told)
    assert said in binhost.check(code=1 if said else 0)


def test_called_wrongly(binhost: Binhost) -> None:
    assert "40 digits" in binhost.check(code=2, fingerprint="ABC")
    assert "hex" in binhost.check(code=2, fingerprint="g" * 40)
    done = subprocess.run(["dash", SCRIPT, "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, "usage: check URL" in done.stderr) == (2, True)


def test_nothing_is_left_behind(binhost: Binhost, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    try:
        binhost.check()
        binhost.flip("Packages")
        binhost.check(code=1)
    finally:
        del os.environ["TMPDIR"]
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["shellcheck", "-s", "sh", SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
