"""The check of the client bundle: dash, the real gpgv, a binhost over loopback HTTP."""

from __future__ import annotations

import gzip
import json
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
from tasks.publish.release_manifest import Manifest
from tests.kit.binhost import RELEASE
from tests.kit.gpg import YEAR, Gpg

SCRIPT = Path(release_manifest.__file__).with_name("check.sh")
SHELLS = [
    shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(shell[0])
]


class Quiet(SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("check-keys")
    home.chmod(0o700)
    gpg = Gpg(home)
    for name in ("good", "other"):
        gpg.new(name, at=time.time() - YEAR)
    gpg.new("expired", expires="2d", at=time.time() - YEAR)
    for name in ("good", "other", "expired"):
        (home / f"{name}.gpg").write_bytes(gpg("--export", gpg.fingerprint(name)))
    yield gpg
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


class Binhost:
    """A published view, and a client that checks it."""

    def __init__(self, place: Path, keys: Gpg) -> None:
        self.keys, self.view, self.state_file = keys, place / "view", place / "seen/base.public"
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
        **fields: Any,
    ) -> None:
        raw = (text or f"TIMESTAMP: {timestamp}\n\n").encode()
        (self.view / "Packages").write_bytes(raw)
        (self.view / "Packages.gz").write_bytes(gzip.compress(raw, mtime=0))
        now = int(time.time()) - age * 86400
        until = now + 30 * 86400
        manifest = Manifest(RELEASE, "public", timestamp // 1000, timestamp, 1, now, until)
        release_manifest.write(self.view, manifest, ["Packages", "Packages.gz"])
        path = self.view / "release.json"
        forged = json.loads(path.read_text()) | fields
        path.write_text(json.dumps(forged, indent=1, sort_keys=True) + "\n")
        proof = self.keys.sign(*how, who=who, data=path.read_bytes(), at=at)
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
                result = subprocess.run(
                    [
                        *shell,
                        SCRIPT,
                        f"http://127.0.0.1:{server.server_port}/",
                        name,
                        group,
                        fingerprint or self.keys.fingerprint(key),
                        self.keys.home / f"{key}.gpg",
                        self.state_file,
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
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr


@pytest.fixture
def binhost(tmp_path: Path, keys: Gpg) -> Binhost:
    return Binhost(tmp_path, keys)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: s[0])
def test_signed_and_newer_states_are_accepted(binhost: Binhost, shell: list[str]) -> None:
    output = binhost.check(shell=tuple(shell))
    assert output.startswith("check: base for public: generation 1, valid for ")
    first = binhost.state_file.read_text()
    assert first.split()[0] == "1000"
    binhost.check(shell=tuple(shell))
    assert binhost.state_file.read_text() == first
    binhost.publish(2000)
    assert "generation 2" in binhost.check(shell=tuple(shell))
    assert binhost.state_file.read_text().split()[0] == "2000"
    binhost.publish(1999)
    output = binhost.check(shell=tuple(shell), code=1)
    assert "refused: it is older (1999) than the newest state seen (2000)" in output
    assert binhost.state_file.read_text().split()[0] == "2000"


def test_other_content_with_the_same_timestamp_is_refused(binhost: Binhost) -> None:
    binhost.check()
    binhost.publish(1000, text="TIMESTAMP: 1000\n\nCPV: a-b/other-1\n\n")
    assert "refused: it differs from the newest state seen" in binhost.check(code=1)


def test_expired_manifest_is_refused(binhost: Binhost) -> None:
    binhost.publish(1000, age=31)
    assert "refused: it expired 24 h ago" in binhost.check(code=1)
    assert not binhost.state_file.exists()


@pytest.mark.parametrize("name", ["Packages", "Packages.gz", "release.json", "release.json.asc"])
def test_flipped_bit_is_refused(binhost: Binhost, name: str) -> None:
    binhost.flip(name)
    output = binhost.check(code=1)
    assert "refused: " in output
    if name.startswith("Packages"):
        assert f"{name} does not match the signed digest" in output
    assert not binhost.state_file.exists()


@pytest.mark.parametrize("name", ["release.json", "release.json.asc", "Packages", "Packages.gz"])
def test_missing_file_is_an_error(binhost: Binhost, name: str) -> None:
    (binhost.view / name).unlink()
    assert f"/{name} could not be fetched" in binhost.check(code=3)
    assert not binhost.state_file.exists()


def test_empty_signature_is_refused(binhost: Binhost) -> None:
    (binhost.view / "release.json.asc").write_bytes(b"")
    assert "refused: the manifest is not signed" in binhost.check(code=1)


@pytest.mark.parametrize(
    "more",
    [
        {"who": "other"},
        {"who": "good other"},  # a second signature, by an unknown key
        {"how": ("--detach-sign", "--armor", "--digest-algo", "SHA1")},
        {"who": "good", "at": time.time() + 3600},
    ],
    ids=["another key", "two signatures", "SHA-1", "in the future"],
)
def test_invalid_signature_is_refused(binhost: Binhost, more: dict[str, Any]) -> None:
    binhost.publish(1000, **more)
    assert "refused: the manifest is not signed" in binhost.check(code=1)


def test_expired_key_is_refused(binhost: Binhost) -> None:
    binhost.publish(1000, who="expired", at=time.time() - YEAR + 60)
    assert "refused: the manifest is not signed" in binhost.check(code=1, key="expired")


def test_key_with_another_fingerprint_is_refused(binhost: Binhost) -> None:
    output = binhost.check(code=1, fingerprint=binhost.keys.fingerprint("other"))
    assert "refused: the manifest is not signed by " in output


def test_manifest_of_another_chroot_or_group_is_refused(binhost: Binhost) -> None:
    assert "this is the binhost 'base', not 'java'" in binhost.check(code=1, name="java")
    assert "this is for 'public', not for 'role:java'" in binhost.check(code=1, group="role:java")
    binhost.publish(1000, name="java")
    assert "this is the binhost 'java', not 'base'" in binhost.check(code=1)


def test_nested_name_is_ignored(binhost: Binhost) -> None:
    binhost.publish(1000, name="java", lock={"name": "base", "group": "public"})
    assert "this is the binhost 'java'" in binhost.check(code=1)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"timestamp": "1000"}, ""),
        ({"timestamp": "soon"}, "no readable timestamp"),
        ({"timestamp": 10**20}, "no readable timestamp"),
    ],
)
def test_timestamp_that_is_no_number_is_refused(
    binhost: Binhost, fields: dict[str, Any], refusal: str
) -> None:
    binhost.publish(1000, **fields)
    assert refusal in binhost.check(code=1 if refusal else 0)


def test_wrong_usage_is_an_error(binhost: Binhost) -> None:
    assert "40 digits" in binhost.check(code=2, fingerprint="ABC")
    assert "hex" in binhost.check(code=2, fingerprint="g" * 40)
    result = subprocess.run(["dash", SCRIPT, "x"], capture_output=True, text=True, check=False)
    assert (result.returncode, "usage: check URL" in result.stderr) == (2, True)


def test_temporary_files_are_deleted(binhost: Binhost, tmp_path: Path) -> None:
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
def test_shellcheck_is_clean() -> None:
    result = subprocess.run(
        ["shellcheck", "-s", "sh", SCRIPT], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")
