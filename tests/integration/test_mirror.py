"""Mirrors on loopback with really signed snapshots; some of them lie."""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from tasks.errors import DownloadFailed, NotTrusted
from tasks.snapshot.mirror import days_back, fetched, newest_day
from tasks.system.files import sha512
from tasks.system.gpgv import Role
from tests.conftest import names
from tests.snapshots import DAY, snapshot

NEXT = DAY + timedelta(days=1)
DEAD = "http://127.0.0.1:1"  # tcpmux: nobody listens


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Serves a folder of tmp_path as a mirror; returns its URL."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()

        def serve(name: str) -> str:
            (tmp_path / name / "snapshots").mkdir(parents=True, exist_ok=True)
            return f"http://127.0.0.1:{server.server_address[1]}/{name}/"

        yield serve
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("gnupg")
    made.chmod(0o700)
    for name in ("release", "stranger"):
        gpg(made, "--quick-gen-key", f"{name}@test.example", "ed25519", "sign", "never")
    yield made
    subprocess.run(["gpgconf", "--homedir", made, "--kill", "all"], check=True)


def gpg(home: Path, *words: str | Path) -> bytes:
    return subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--quiet", "--no-options", "--yes",
         "--pinentry-mode", "loopback", "--passphrase", "", *words],
        check=True, capture_output=True,
    ).stdout  # fmt: skip


@pytest.fixture
def role(home: Path, tmp_path: Path) -> Role:
    (tmp_path / "release.asc").write_bytes(gpg(home, "--armor", "--export", "release@test.example"))
    lines = gpg(home, "--with-colons", "--list-keys", "release@test.example").decode()
    print_ = next(x.split(":")[9] for x in lines.splitlines() if x.startswith("fpr:"))
    return Role("snapshots", tmp_path / "release.asc", (print_,))


@pytest.fixture
def publish(home: Path, tmp_path: Path) -> Callable[..., Path]:
    """Puts a signed snapshot on a mirror."""

    def put(name: str, day: date = DAY, who: str = "release", **more: object) -> Path:
        archive = snapshot(tmp_path / name / "snapshots", day, **more)  # type: ignore[arg-type]
        gpg(home, "-u", f"{who}@test.example", "--output", f"{archive}.gpgsig",
            "--detach-sign", archive)  # fmt: skip
        return archive

    return put


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


Serve = Callable[[str], str]
Publish = Callable[..., Path]


def test_fetched(mirror: Serve, publish: Publish, role: Role, scratch: Path) -> None:
    url = mirror("one")
    archive = publish("one")
    with fetched((url,), "gentoo", DAY, role, scratch) as got:
        assert got.path.read_bytes() == archive.read_bytes()
        assert got.url == f"{url}snapshots/gentoo-20260115.tar.xz"
        assert got.sha512 == sha512(archive)
        assert got.signature.signer == role.fingerprints[0]
        held = got.path
    assert not held.exists()


def flip(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    raw[len(raw) // 2] ^= 1
    archive.write_bytes(raw)


def signature(archive: Path) -> Path:
    return archive.with_name(archive.name + ".gpgsig")


LIES: dict[str, Callable[[Path], object]] = {
    "flipped byte": flip,
    "cut short": lambda archive: archive.write_bytes(archive.read_bytes()[:-1]),
    "html": lambda archive: archive.write_text("<html>welcome</html>"),
    "empty": lambda archive: archive.write_bytes(b""),
    "empty signature": lambda archive: signature(archive).write_bytes(b""),
    "html signature": lambda archive: signature(archive).write_text("<html>"),
    "huge signature": lambda archive: signature(archive).write_bytes(bytes(1 << 20)),
    "no signature": lambda archive: signature(archive).unlink(),
    "no archive": lambda archive: archive.unlink(),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_the_first_mirror_lies(
    mirror: Serve, publish: Publish, role: Role, scratch: Path, lie: Callable[[Path], object]
) -> None:
    mirrors = (mirror("one"), mirror("two"))
    lie(publish("one"))
    good = publish("two")
    with fetched(mirrors, "gentoo", DAY, role, scratch) as got:
        assert got.url.startswith(mirrors[1])
        assert got.sha512 == sha512(good)
    assert [n for n in names(scratch) if n.endswith(".xz")] == []


def test_the_first_mirror_is_dead(
    mirror: Serve, publish: Publish, role: Role, scratch: Path
) -> None:
    publish_at = mirror("two")
    publish("two")
    with fetched((DEAD, publish_at), "gentoo", DAY, role, scratch) as got:
        assert got.url.startswith(publish_at)


@pytest.mark.parametrize("who", ["release", "stranger"])
def test_all_lie(mirror: Serve, publish: Publish, role: Role, scratch: Path, who: str) -> None:
    mirrors = (mirror("one").replace("//", "//me:secret@"), mirror("two"), DEAD)
    for name in ("one", "two"):
        archive = publish(name, who=who)
        if who == "release":
            flip(archive)
    with pytest.raises(NotTrusted) as refused, fetched(mirrors, "gentoo", DAY, role, scratch):
        pass
    for each in (mirror("one"), mirror("two"), "127.0.0.1:1"):
        assert each in refused.value.message
    assert "secret" not in str(refused.value)
    assert [n for n in names(scratch) if n.endswith(".xz")] == []


def test_another_day_s_signature(
    mirror: Serve, publish: Publish, role: Role, scratch: Path
) -> None:
    url = mirror("one")
    signature(publish("one", NEXT)).replace(signature(publish("one")))
    with (
        pytest.raises(NotTrusted, match="does not fit the bytes"),
        fetched((url,), "gentoo", DAY, role, scratch),
    ):
        pass


def test_nobody_has_it(mirror: Serve, role: Role, scratch: Path) -> None:
    mirrors = (mirror("one"), DEAD)
    with (
        pytest.raises(DownloadFailed, match=r"HTTP 404.*refused"),
        fetched(mirrors, "gentoo", DAY, role, scratch),
    ):
        pass


def test_an_error_in_the_block_is_no_reason_to_try_another(
    mirror: Serve, publish: Publish, role: Role, scratch: Path
) -> None:
    mirrors = (mirror("one"), mirror("two"))
    publish("one")
    publish("two")
    tried = []
    with (
        pytest.raises(NotTrusted, match="mine"),
        fetched(mirrors, "gentoo", DAY, role, scratch) as got,
    ):
        tried.append(got.url)
        raise NotTrusted("mine")
    assert len(tried) == 1
    assert not got.path.exists()


def days(count: int = 4) -> Iterator[date]:
    return days_back(NEXT, count)


def test_newest_day(mirror: Serve, publish: Publish, scratch: Path) -> None:
    mirrors = (mirror("one"), mirror("two"))
    assert newest_day(mirrors, "gentoo", days(), scratch) is None
    publish("one", DAY - timedelta(days=1))
    assert newest_day(mirrors, "gentoo", days(), scratch) == DAY - timedelta(days=1)
    publish("two", DAY)  # one mirror is behind
    assert newest_day(mirrors, "gentoo", days(), scratch) == DAY
    assert newest_day(mirrors, "portage", days(), scratch) is None
    assert newest_day(mirrors, "gentoo", iter([]), scratch) is None
    assert newest_day(mirrors, "gentoo", days(1), scratch) is None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_one_dead_mirror_does_not_hide_the_other(
    mirror: Serve, publish: Publish, scratch: Path, order: tuple[int, int]
) -> None:
    both = (mirror("one"), DEAD)
    mirrors = (both[order[0]], both[order[1]])
    assert newest_day(mirrors, "gentoo", days(), scratch) is None
    publish("one", DAY)
    assert newest_day(mirrors, "gentoo", days(), scratch) == DAY


def test_no_mirror_answers(scratch: Path) -> None:
    with pytest.raises(DownloadFailed, match="refused") as failed:
        newest_day((DEAD, DEAD), "gentoo", days(), scratch)
    assert "[mirrors]" in failed.value.hint


def test_days_back() -> None:
    assert list(days_back(date(2026, 3, 2), 3)) == [
        date(2026, 3, 2), date(2026, 3, 1), date(2026, 2, 28),
    ]  # fmt: skip


def test_no_password_in_what_is_said(scratch: Path) -> None:
    with pytest.raises(DownloadFailed) as failed:
        newest_day(("http://me:secret@127.0.0.1:1",), "gentoo", days(), scratch)
    assert "secret" not in str(failed.value)
