"""Seeds from mirrors that may lie, and from a file: pinned by `lock`, made by `seed:NAME`."""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks import records
from tasks.config.load import Config
from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.flow import chroots, trees, upstream_updates
from tasks.layout import Layout
from tasks.lock import Lock, SeedPin, TreePin
from tasks.site import Site
from tasks.system import http
from tests.kit.files import names
from tests.kit.gpg import KEYS_CREATED, Keys
from tests.kit.processes import eventually
from tests.kit.project import PROJECT
from tests.kit.scripted_server import Answer, ScriptedServer, endless, file, stalling, status
from tests.kit.stages import describe_tree, pack_stage, sample_stage

OLD, NEW = "20260301T170000Z", "20260308T170000Z"
STEM = "stage3-amd64-openrc"
TREE = TreePin(tag="20260310", commit="c" * 40)


@dataclass
class Mirrors:
    """Mirrors by name, what they have, and a site that asks them in an order."""

    folder: Path
    server: ScriptedServer
    keys: Keys
    tarball: bytes
    printed: Callable[[], str]
    seed: dict[str, Any] = field(default_factory=lambda: {"flavour": "openrc", "key": "stages"})

    def path(self, mirror: str, rest: str) -> str:
        return f"/{mirror}/releases/amd64/autobuilds/{rest}"

    def put(self, mirror: str, rest: str, answer: bytes | Answer | None) -> None:
        path = self.path(mirror, rest)
        self.server.answers.pop(path, None)
        if answer is not None:
            self.server.url(path, file(answer) if isinstance(answer, bytes) else answer)

    def clear(self, text: str, who: str = "good") -> bytes:
        return self.keys.sign("--clearsign", who=who, data=text.encode(), at=KEYS_CREATED + 9)

    def pointer(self, mirror: str, build: str = NEW, who: str = "good") -> None:
        text = f"# ts=1\n{build}/{STEM}-{build}.tar.xz {len(self.tarball)}\n"
        self.put(mirror, f"latest-{STEM}.txt", self.clear(text, who))

    def publish(
        self, mirror: str, build: str = NEW, *, listing: bytes | None = None, who: str = "good"
    ) -> None:
        """A build with its digests; the pointer leads to it."""
        name = f"{STEM}-{build}.tar.xz"
        text = f"# SHA512 HASH\n{digest(self.tarball)}  {name}\n"
        if listing is not None:
            text += f"# SHA512 HASH\n{digest(listing)}  {name}.CONTENTS.gz\n"
            self.put(mirror, f"{build}/{name}.CONTENTS.gz", listing)
        self.put(mirror, f"{build}/{name}", self.tarball)
        self.put(mirror, f"{build}/{name}.DIGESTS", self.clear(text, who))
        self.pointer(mirror, build, who)

    def site(self, *mirrors: str, **seed: Any) -> Site:
        self.seed = seed or self.seed
        config = Config.model_validate(
            {
                "keys": {
                    "stages": {
                        "file": str(self.keys.ring),
                        "fingerprints": [self.keys.fingerprint("good")],
                    }
                },
                "mirrors": {"gentoo": [self.server.url(f"/{each}") for each in mirrors or ["one"]]},
                "tree": {"key": "stages"},
                "seeds": {"s": self.seed},
                "chroots": {},
            }
        )
        return Site(Layout(self.folder, self.folder / "state"), config)

    def lock(self, *mirrors: str, **seed: Any) -> SeedPin:
        """Run `doit lock`; returns what it pins."""
        site = self.site(*mirrors, **seed)
        self.printed()
        trees.lock(site, asked=True)
        self.nothing_left(site)
        return locks.read(site.layout).seeds["s"]

    def make(self, *mirrors: str) -> Path:
        """Run `doit seed:s`; returns the extracted tree."""
        site = self.site(*mirrors)
        record = chroots.seed(site, "s")
        self.nothing_left(site)
        return site.layout.seed(record["sha512"])

    def asked(self) -> list[str]:
        """The files that were asked for since the last call, as MIRROR NAME."""
        found = [f"{path.split('/')[1]} {path.rsplit('/', 1)[1]}" for path in self.server.paths]
        self.server.paths.clear()
        return found

    @staticmethod
    def nothing_left(site: Site) -> None:
        for folder in (site.layout.downloads, site.layout.work, site.layout.trash):
            assert not folder.exists() or names(folder) == []
        seeds = site.layout.seed("x").parent
        assert not seeds.exists() or not list(seeds.glob(".*"))


def digest(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    place = tmp_path_factory.mktemp("made")
    return pack_stage(sample_stage(place / "root"), place / "stage3.tar.xz")


@pytest.fixture
def mirrors(
    tmp_path: Path, server: ScriptedServer, keys: Keys, made: Path, request: pytest.FixtureRequest
) -> Mirrors:
    patch = request.getfixturevalue("monkeypatch")
    patch.setattr(http, "_PAUSES", (0.0, 0.0))
    patch.setattr(trees, "_frozen", lambda *_: TREE)
    server.answers["*"] = status(404)
    capsys = request.getfixturevalue("capsys")
    return Mirrors(tmp_path, server, keys, made.read_bytes(), lambda: "".join(capsys.readouterr()))


def refused(act: Callable[[], Any], kind: type[BinmillError], told: str) -> None:
    with pytest.raises(kind) as failed:
        act()
    assert told in failed.value.message
    assert failed.value.message.isprintable()
    assert failed.value.hint


# The newest, by the signed pointer
def test_the_newest(mirrors: Mirrors, made: Path) -> None:
    mirrors.publish("one")
    pin = mirrors.lock()
    assert pin == SeedPin(
        arch="amd64",
        flavour="openrc",
        path=f"{NEW}/{STEM}-{NEW}.tar.xz",
        size=len(mirrors.tarball),
        sha512=digest(mirrors.tarball),
    )
    assert describe_tree(mirrors.make()) == describe_tree(made.parent / "root")
    assert "  extracted stage3-amd64-openrc-20260308T170000Z.tar.xz: " in mirrors.printed()
    mirrors.asked()
    mirrors.make()  # it is there
    assert mirrors.asked() == []


def test_a_newer_one_moves_the_lock_and_an_older_one_does_not(mirrors: Mirrors) -> None:
    mirrors.publish("one", OLD)
    assert mirrors.lock().build == OLD
    mirrors.publish("one", NEW)
    assert mirrors.lock().build == NEW
    mirrors.publish("one", OLD)
    refused(mirrors.lock, NotTrusted, f"its newest {STEM} is {OLD}, older than the locked {NEW}")
    mirrors.publish("two", NEW)  # an honest one beside it
    assert mirrors.lock("one", "two").build == NEW
    assert f"passed over: {mirrors.server.url('/one/')}" in mirrors.printed()
    assert mirrors.lock("one", flavour="openrc", key="stages", build=OLD).build == OLD  # on purpose


def test_a_newer_one_is_told_and_not_followed(mirrors: Mirrors) -> None:
    mirrors.publish("one", OLD)
    pin = mirrors.lock()
    site = mirrors.site()

    def told() -> str:
        mirrors.printed()
        upstream_updates.ask(site)
        mirrors.nothing_left(site)
        assert locks.read(site.layout).seeds["s"] == pin
        left = site.layout.news("seed:s").parent
        assert not left.exists() or names(left) in ([], ["seed.s.json"])
        return records.news(site.layout, "seed:s", pin.path)

    assert told() == ""
    mirrors.pointer("one", NEW)
    assert told() == f"s: {NEW} is there (pinned: {OLD})"
    assert mirrors.printed() == f"  s: {NEW} is there (pinned: {OLD}); `doit lock` follows\n"
    mirrors.put("one", f"latest-{STEM}.txt", None)  # nobody answers: what was known stays
    assert told().startswith(f"s: {NEW}")
    assert f"latest-{STEM}.txt" in mirrors.printed()
    mirrors.publish("one", OLD)
    assert told() == ""
    mirrors.asked()
    upstream_updates.ask(mirrors.site("one", flavour="openrc", key="stages", build=OLD))
    assert mirrors.asked() == []  # who names a build wants no other


HTML = b"<html><body>200 Not Found</body></html>\n"


# 6, 7, 11, 12, 18: a pointer or digests that are not accepted; the next mirror is asked
@pytest.mark.parametrize("which", [f"latest-{STEM}.txt", f"{NEW}/{STEM}-{NEW}.tar.xz.DIGESTS"])
@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("html", "there is no signature in it"),
        ("altered", "the signature does not fit the bytes"),
        ("stranger", "signed by a key that is not in the key file"),
        ("role", "which is not pinned for this role"),
        ("empty", "there is no signature in it"),
        ("other", "has no SHA512 of|names no stage3"),
        ("403", "HTTP 403"),
        ("huge", "too large"),
    ],
)
def test_what_is_signed_is_not_accepted(mirrors: Mirrors, which: str, how: str, told: str) -> None:
    mirrors.publish("one")
    mirrors.publish("two")
    text = "# SHA512 HASH\n" + "a" * 128 + "  other.tar.xz\n"
    good = mirrors.clear(text)
    bad: dict[str, bytes | Answer] = {
        "html": HTML,
        "altered": good.replace(b"aaa", b"abc", 1),
        "empty": b"",
        "other": good,
        "stranger": mirrors.clear(text, "stranger"),
        "role": mirrors.clear(text, "other"),
        "403": status(403),
        "huge": good + b"x" * (1 << 20),
    }
    mirrors.put("one", which, bad[how])
    with pytest.raises(NotTrusted if how not in ("403", "huge") else DownloadFailed) as failed:
        mirrors.lock("one")
    assert any(word in failed.value.message for word in told.split("|"))
    assert not (mirrors.folder / "config.lock").exists()
    assert mirrors.lock("one", "two").sha512 == digest(mirrors.tarball)
    assert f"passed over: {mirrors.server.url(mirrors.path('one', which))}" in mirrors.printed()


# A build of one's choice
def test_a_pinned_build(mirrors: Mirrors, made: Path) -> None:
    mirrors.publish("one", OLD)
    mirrors.publish("one", NEW)
    mirrors.asked()
    pin = mirrors.lock(flavour="openrc", key="stages", build=OLD)
    assert pin.path == f"{OLD}/{STEM}-{OLD}.tar.xz"
    assert pin.size is None
    assert mirrors.asked() == [f"one {STEM}-{OLD}.tar.xz.DIGESTS"]  # no pointer
    assert describe_tree(mirrors.make()) == describe_tree(made.parent / "root")


def test_another_build_under_the_pinned_name(mirrors: Mirrors) -> None:
    """The digests are of a name: those of one build are not another's."""
    mirrors.publish("one", OLD)
    path = mirrors.path("one", f"{OLD}/{STEM}-{OLD}.tar.xz")
    for ending in ("", ".DIGESTS"):
        answer = mirrors.server.answers[f"{path}{ending}"]
        mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz{ending}", answer)
    wanted = {"flavour": "openrc", "key": "stages", "build": NEW}
    refused(lambda: mirrors.lock(**wanted), NotTrusted, f"has no SHA512 of {STEM}-{NEW}.tar.xz")


def test_a_build_that_no_mirror_has(mirrors: Mirrors) -> None:
    mirrors.publish("one", NEW)
    wanted = {"flavour": "openrc", "key": "stages", "build": OLD}
    refused(lambda: mirrors.lock("one", "two", **wanted), DownloadFailed, "no mirror gave")


# Without digests: the tarball's own signature
@pytest.mark.parametrize(
    ("who", "over", "told"),
    [
        ("good", None, ""),
        ("other", None, "which is not pinned for this role"),
        ("good", b"something else", "the signature does not fit the bytes"),
    ],
)
def test_no_digests(mirrors: Mirrors, who: str, over: bytes | None, told: str) -> None:
    mirrors.publish("one")
    name = f"{NEW}/{STEM}-{NEW}.tar.xz"
    mirrors.put("one", f"{name}.DIGESTS", None)
    sign = mirrors.keys.sign
    mirrors.put(
        "one", f"{name}.asc", sign(who=who, data=over or mirrors.tarball, at=KEYS_CREATED + 9)
    )
    if told:
        refused(mirrors.lock, NotTrusted, told)
        assert not (mirrors.folder / "config.lock").exists()
        assert names(mirrors.site().layout.downloads) == []
        return
    site = mirrors.site()
    trees.lock(site, asked=True)
    assert locks.read(site.layout).seeds["s"].sha512 == digest(mirrors.tarball)
    assert names(site.layout.downloads) == [f"{STEM}-{NEW}.tar.xz"]
    mirrors.asked()
    mirrors.make()
    assert mirrors.asked() == []  # it was downloaded to be verified


# The tarball: 1 to 10
LIES: dict[str, Callable[[bytes], bytes | Answer]] = {
    "1 truncated": lambda data: file(data, pieces=len(data) // 2),
    "2 a byte flipped": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
    "4 endless": lambda _: endless,
    "5 a redirect loop": lambda _: (
        lambda h: h.head(302, f"Location: {h.path}", "Content-Length: 0")
    ),
    "6 html": lambda _: HTML,
    "7 gone": lambda _: status(404),
    "7 busy": lambda _: status(503),
    "8 another": lambda data: data + bytes(512),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tarball_that_is_not_the_pinned_one(mirrors: Mirrors, made: Path, lie: str) -> None:
    mirrors.publish("one")
    mirrors.publish("two")
    mirrors.lock("one", "two")
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz", LIES[lie](mirrors.tarball))
    with pytest.raises((NotTrusted, DownloadFailed)) as failed:
        chroots.seed(mirrors.site("one"), "s")
    assert failed.value.hint
    layout = mirrors.site().layout
    assert names(layout.seed("x").parent) == []
    assert describe_tree(mirrors.make("one", "two")) == describe_tree(made.parent / "root")


def test_silence(mirrors: Mirrors, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3: some bytes, then nothing."""
    monkeypatch.setattr(http, "_IDLE_SECONDS", 0.3)
    mirrors.publish("one")
    mirrors.publish("two")
    mirrors.lock("one", "two")
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz", stalling)
    assert describe_tree(mirrors.make("one", "two")) == describe_tree(made.parent / "root")


def test_no_mirror_at_all(mirrors: Mirrors) -> None:
    """10: nobody answers."""
    mirrors.publish("one")
    mirrors.lock()
    mirrors.server.shutdown()
    mirrors.server.server_close()
    refused(lambda: chroots.seed(mirrors.site(), "s"), DownloadFailed, "no mirror gave")


# The listing
def contents(made: Path) -> bytes:
    told = subprocess.run(["tar", "-tvf", made], capture_output=True, check=True)
    return gzip.compress(told.stdout)


def test_a_listing_that_the_digests_cover(mirrors: Mirrors, made: Path) -> None:
    mirrors.publish("one", listing=contents(made))
    pin = mirrors.lock()
    assert (pin.contents, pin.contents_sha512) == (
        f"{NEW}/{STEM}-{NEW}.tar.xz.CONTENTS.gz",
        digest(contents(made)),
    )
    mirrors.make()
    assert "held against" not in mirrors.printed()


def test_a_listing_of_something_else(mirrors: Mirrors, made: Path) -> None:
    told = gzip.decompress(contents(made)).replace(b"emerge", b"merge")
    mirrors.publish("one", listing=gzip.compress(told))
    mirrors.lock()
    refused(
        lambda: chroots.seed(mirrors.site(), "s"), BinmillError, "was not unpacked as its CONTENTS"
    )
    mirrors.nothing_left(mirrors.site())
    assert names(mirrors.site().layout.seed("x").parent) == []


@pytest.mark.parametrize("answer", [None, HTML, status(503)])
def test_a_listing_that_cannot_be_had(mirrors: Mirrors, made: Path, answer: Any) -> None:
    mirrors.publish("one", listing=contents(made))
    mirrors.lock()
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz.CONTENTS.gz", answer)
    assert describe_tree(mirrors.make()) == describe_tree(made.parent / "root")
    assert f"no mirror has the pinned {STEM}-{NEW}.tar.xz.CONTENTS.gz" in mirrors.printed()


def test_an_unsigned_listing_is_not_asked_for(mirrors: Mirrors) -> None:
    mirrors.publish("one")
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz.CONTENTS.gz", b"lies")
    assert mirrors.lock().contents is None
    mirrors.make()
    assert not [path for path in mirrors.asked() if path.endswith(".gz")]


# A file of one's own
def own(mirrors: Mirrors, made: Path, name: str = "stage4.tar.xz") -> dict[str, Any]:
    (mirrors.folder / name).write_bytes(made.read_bytes())
    return {"file": name, "sha512": digest(made.read_bytes())}


def test_a_file(mirrors: Mirrors, made: Path) -> None:
    seed = own(mirrors, made, "caf\u00e9 stage4.tar.xz")
    pin = mirrors.lock(**seed)
    assert pin == SeedPin(path=seed["file"], sha512=seed["sha512"])
    assert describe_tree(mirrors.make()) == describe_tree(made.parent / "root")
    assert mirrors.asked() == []
    assert (mirrors.folder / seed["file"]).exists()


def test_another_file_than_was_pinned(mirrors: Mirrors, made: Path) -> None:
    seed = own(mirrors, made)
    mirrors.lock(**seed)
    with (mirrors.folder / "stage4.tar.xz").open("ab") as more:
        more.write(bytes(4))  # padding that xz takes
    told = "stage4.tar.xz is not the pinned file"
    refused(lambda: chroots.seed(mirrors.site(), "s"), NotTrusted, told)
    mirrors.nothing_left(mirrors.site())
    assert names(mirrors.site().layout.seed("x").parent) == []


@pytest.mark.parametrize("there", [False, True])
def test_no_such_file(mirrors: Mirrors, made: Path, there: bool) -> None:
    seed = own(mirrors, made)
    (mirrors.folder / "stage4.tar.xz").unlink()
    if there:
        (mirrors.folder / "stage4.tar.xz").mkdir()
    mirrors.lock(**seed)
    refused(lambda: chroots.seed(mirrors.site(), "s"), BinmillError, "stage4.tar.xz cannot be read")


def test_setuid_by_the_config(mirrors: Mirrors) -> None:
    root = sample_stage(mirrors.folder / "root")
    (root / "var/queue").write_text("")
    (root / "var/queue").chmod(0o4755)
    archive = pack_stage(root, mirrors.folder / "own.tar.zst")
    seed = {"file": "own.tar.zst", "sha512": digest(archive.read_bytes())}
    mirrors.lock(**seed)
    refused(lambda: chroots.seed(mirrors.site(), "s"), NotTrusted, "/var/queue is setuid")
    mirrors.seed = {**seed, "setuid": ["/var/queue"]}
    assert (mirrors.make() / "var/queue").stat().st_mode & 0o4000


# 30: killed
SCRIPT = """
import sys
from pathlib import Path
from tasks.flow import chroots
from tasks.chroot import unpack
from tasks.layout import Layout
from tasks.site import Site
from tasks.config import Config
import json, time
from tasks.engine.signals import end_cleanly
end_cleanly()
def hold(*_): Path(sys.argv[2]).touch(); time.sleep(60)
unpack.stage.check = hold
folder = Path(sys.argv[1])
site = Site(Layout(folder, folder / "state"), Config.model_validate(json.loads(sys.argv[3])))
chroots.seed(site, "s")
"""


def kill(mirrors: Mirrors, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill `doit seed:s` when all is unpacked and nothing has its name yet."""
    config = mirrors.site().config.model_dump_json(exclude_none=True)
    sign = mirrors.folder / "held"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mirrors.folder, sign, config],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": "."},
    ) as process:
        held = eventually(sign.exists)
        process.send_signal(how)
    assert held
    if how != signal.SIGKILL:
        return
    assert [path.name[0] for path in mirrors.site().layout.seed("x").parent.iterdir()] == ["."]


def test_killed_and_run_again(mirrors: Mirrors, made: Path) -> None:
    mirrors.publish("one")
    mirrors.lock()
    kill(mirrors)
    mirrors.asked()
    assert describe_tree(mirrors.make()) == describe_tree(made.parent / "root")
    assert mirrors.asked() == []  # the verified tarball was still there


def test_killed_and_another_is_wanted_by_then(mirrors: Mirrors, made: Path) -> None:
    mirrors.publish("one", OLD)
    mirrors.lock()
    kill(mirrors)
    mirrors.tarball = pack_stage(
        made.parent / "root", mirrors.folder / "new.tar.xz", packer=("xz", "-1")
    ).read_bytes()
    mirrors.publish("one", NEW)
    site = mirrors.site()
    trees.lock(site, asked=True)
    chroots.seed(site, "s")
    made_of = digest(mirrors.tarball)[:32]
    assert names(site.layout.seed("x").parent) == [made_of, f"{made_of}.listing"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_asked_to_end(mirrors: Mirrors, made: Path, how: signal.Signals) -> None:
    """34: nothing is left, not even for the next run to sweep."""
    mirrors.publish("one")
    mirrors.lock()
    kill(mirrors, how)
    mirrors.nothing_left(mirrors.site())
    assert names(mirrors.site().layout.seed("x").parent) == []
    assert describe_tree(mirrors.make()) == describe_tree(made.parent / "root")


def test_two_seeds_of_one_stage_at_once(mirrors: Mirrors, made: Path) -> None:
    """The second waits for the first, and takes what it made."""
    import threading

    mirrors.publish("one")
    pin = mirrors.lock()
    site = mirrors.site()
    locks.write(site.layout, Lock(tree=TREE, seeds={"s": pin, "t": pin}))
    both = Config.model_validate(
        {
            **site.config.model_dump(exclude_none=True),
            "seeds": {"s": mirrors.seed, "t": mirrors.seed},
        }
    )
    site = Site(site.layout, both)
    records: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: records.append(chroots.seed(site, n))) for n in "st"
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert records[0] == records[1]
    assert describe_tree(site.layout.seed(pin.sha512)) == describe_tree(made.parent / "root")
    mirrors.nothing_left(site)
