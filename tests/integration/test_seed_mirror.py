"""Seeds from hostile mirrors, and from a file: pinned by `lock`, extracted by `seed:NAME`."""

from __future__ import annotations

import gzip
import hashlib
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks import updates
from tasks.config.tables import Config
from tasks.errors import BinmillError, DownloadFailed, NotTrusted
from tasks.flow import chroots, trees, upstream_updates
from tasks.layout import Layout
from tasks.lock import Lock, SeedPin, TreePin
from tasks.records import Inputs, Request
from tasks.site import Site
from tasks.system import http
from tasks.system.http import NotOnMirrors
from tasks.system.notes import Note, listening
from tests.kit.files import names
from tests.kit.gpg import KEYS_CREATED, Keys
from tests.kit.processes import eventually
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.kit.scripted_server import Answer, ScriptedServer, endless, file, stalling, status
from tests.kit.stages import describe_tree, pack_stage, sample_stage
from tests.programs import pause_before_sanity

OLD, NEW = "20260301T170000Z", "20260308T170000Z"
STEM = "stage3-amd64-openrc"
TREE = TreePin(tag="20260310", commit="c" * 40)


@dataclass
class StageMirrors:
    """StageMirrors by name, the files on them, and a site that uses some of them, in an order."""

    folder: Path
    server: ScriptedServer
    keys: Keys
    tarball: bytes
    seed: dict[str, Any] = field(default_factory=lambda: {"flavour": "openrc", "key": "stages"})
    notes: list[Note] = field(default_factory=list)  # of the last `lock` or `extract`

    def path(self, mirror: str, rest: str) -> str:
        return f"/{mirror}/releases/amd64/autobuilds/{rest}"

    def put(self, mirror: str, rest: str, answer: bytes | Answer | None) -> None:
        path = self.path(mirror, rest)
        self.server.answers.pop(path, None)
        if answer is not None:
            self.server.url(path, file(answer) if isinstance(answer, bytes) else answer)

    def clearsign(self, text: str, who: str = "good") -> bytes:
        return self.keys.sign("--clearsign", who=who, data=text.encode(), at=KEYS_CREATED + 9)

    def publish_pointer(self, mirror: str, build: str = NEW, who: str = "good") -> None:
        text = f"# ts=1\n{build}/{STEM}-{build}.tar.xz {len(self.tarball)}\n"
        self.put(mirror, f"latest-{STEM}.txt", self.clearsign(text, who))

    def publish(
        self, mirror: str, build: str = NEW, *, listing: bytes | None = None, who: str = "good"
    ) -> None:
        """Publish a build with its digests, and a pointer to it."""
        name = f"{STEM}-{build}.tar.xz"
        text = f"# SHA512 HASH\n{digest(self.tarball)}  {name}\n"
        if listing is not None:
            text += f"# SHA512 HASH\n{digest(listing)}  {name}.CONTENTS.gz\n"
            self.put(mirror, f"{build}/{name}.CONTENTS.gz", listing)
        self.put(mirror, f"{build}/{name}", self.tarball)
        self.put(mirror, f"{build}/{name}.DIGESTS", self.clearsign(text, who))
        self.publish_pointer(mirror, build, who)

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
        """Run `doit lock`; return its pin."""
        site = self.site(*mirrors, **seed)
        self.notes = []
        with listening(self.notes.append):
            trees.resolve(site, named_inputs(site))
        self.nothing_left(site)
        return locks.read(site.layout).seeds["s"]

    def extract(self, *mirrors: str) -> Path:
        """Run `doit seed:s`; return the extracted tree."""
        site = self.site(*mirrors)
        self.notes = []
        with listening(self.notes.append):
            record = chroots.extract_seed(site, "s", reading_lock(site))
        self.nothing_left(site)
        return site.layout.seed(record.sha512)

    def requests(self) -> list[str]:
        """Return the files requested since the last call, as MIRROR NAME."""
        paths = [f"{path.split('/')[1]} {path.rsplit('/', 1)[1]}" for path in self.server.paths]
        self.server.paths.clear()
        return paths

    def skipped_urls(self) -> list[str]:
        """Return the URLs that the last `lock` skipped."""
        return [str(n.fields["url"]) for n in self.notes if n.code == "stage-mirror-skipped"]

    @staticmethod
    def nothing_left(site: Site) -> None:
        for folder in (site.layout.downloads, site.layout.work, site.layout.trash):
            assert not folder.exists() or names(folder) == []
        seeds = site.layout.seed("x").parent
        assert not seeds.exists() or not list(seeds.glob(".*"))


def named_inputs(site: Site) -> Inputs:
    """The inputs of a task that was named on the command line."""
    return Inputs(site.layout, frozenset(), request=Request(named=True))


def reading_lock(site: Site) -> Inputs:
    """The inputs of a task that declares config.lock."""
    return Inputs(site.layout, frozenset(), frozenset({site.layout.lock}))


def digest(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest()


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory, needs_root: None) -> Path:  # noqa: ARG001
    place = tmp_path_factory.mktemp("stage")
    return pack_stage(sample_stage(place / "root"), place / "stage3.tar.xz")


@pytest.fixture
def mirrors(
    tmp_path: Path,
    server: ScriptedServer,
    keys: Keys,
    tarball: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> StageMirrors:
    monkeypatch.setattr(http, "_PAUSES", (0.0, 0.0))
    monkeypatch.setattr(trees, "_tree_pin", lambda *_: TREE)
    server.answers["*"] = status(404)
    return StageMirrors(tmp_path, server, keys, tarball.read_bytes())


# The newest build, by the signed pointer
def test_lock_pins_the_newest_build_and_seed_extracts_it(
    mirrors: StageMirrors, tarball: Path
) -> None:
    mirrors.publish("one")
    pin = mirrors.lock()
    assert pin == SeedPin(
        arch="amd64",
        flavour="openrc",
        path=f"{NEW}/{STEM}-{NEW}.tar.xz",
        size=len(mirrors.tarball),
        sha512=digest(mirrors.tarball),
    )
    assert describe_tree(mirrors.extract()) == describe_tree(tarball.parent / "root")
    assert [note.code for note in mirrors.notes] == ["seed-extracted"]
    mirrors.requests()
    mirrors.extract()  # nothing to do
    assert mirrors.requests() == []


def test_lock_moves_to_a_newer_build_and_never_to_an_older_one(mirrors: StageMirrors) -> None:
    mirrors.publish("one", OLD)
    assert mirrors.lock().build == OLD
    mirrors.publish("one", NEW)
    assert mirrors.lock().build == NEW
    mirrors.publish("one", OLD)
    with refused(NotTrusted, "stage-pointer-older", stage=STEM, build=OLD, locked=NEW):
        mirrors.lock()
    mirrors.publish("two", NEW)
    assert mirrors.lock("one", "two").build == NEW
    assert mirrors.skipped_urls() == [mirrors.server.url(mirrors.path("one", f"latest-{STEM}.txt"))]
    assert mirrors.lock("one", flavour="openrc", key="stages", build=OLD).build == OLD  # on purpose


def test_upstream_updates_report_a_newer_build_and_keep_the_pin(mirrors: StageMirrors) -> None:
    mirrors.publish("one", OLD)
    pin = mirrors.lock()
    site = mirrors.site()

    def update() -> Note | None:
        upstream_updates.look(site)
        mirrors.nothing_left(site)
        assert locks.read(site.layout).seeds["s"] == pin
        folder = site.layout.upstream_update("seed:s").parent
        assert not folder.exists() or names(folder) in ([], ["seed.s.json"])
        return updates.read(site.layout, "seed:s", pin.path)

    newer = Note("seed-newer", {"seed": "s", "build": NEW, "pinned": OLD})
    assert update() is None
    mirrors.publish_pointer("one", NEW)
    assert update() == newer
    mirrors.put("one", f"latest-{STEM}.txt", None)  # no answer: the last update stays
    with listening(mirrors.notes.append):
        assert update() == newer
    assert mirrors.notes[-1].code == "update-unknown"
    mirrors.publish("one", OLD)
    assert update() is None
    mirrors.requests()
    upstream_updates.look(mirrors.site("one", flavour="openrc", key="stages", build=OLD))
    assert mirrors.requests() == []  # with `build`, no newer one is of interest


HTML = b"<html><body>200 Not Found</body></html>\n"


# Signed files that are not accepted: the next mirror is used
@pytest.mark.parametrize("which", [f"latest-{STEM}.txt", f"{NEW}/{STEM}-{NEW}.tar.xz.DIGESTS"])
@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [
        ("html", NotTrusted, "signature-absent"),
        ("altered", NotTrusted, "signature-wrong"),
        ("unknown key", NotTrusted, "signing-key-unknown"),
        ("key of another role", NotTrusted, "signing-key-not-pinned"),
        ("empty", NotTrusted, "signature-absent"),
        ("of another file", NotTrusted, None),
        ("403", DownloadFailed, None),
        ("huge", DownloadFailed, None),
    ],
)
def test_lock_with_an_unacceptable_signed_file_uses_the_next_mirror(
    mirrors: StageMirrors, which: str, how: str, kind: type[BinmillError], reason: str | None
) -> None:
    mirrors.publish("one")
    mirrors.publish("two")
    text = "# SHA512 HASH\n" + "a" * 128 + "  other.tar.xz\n"
    good = mirrors.clearsign(text)
    bad: dict[str, bytes | Answer] = {
        "html": HTML,
        "altered": good.replace(b"aaa", b"abc", 1),
        "empty": b"",
        "of another file": good,
        "unknown key": mirrors.clearsign(text, "stranger"),
        "key of another role": mirrors.clearsign(text, "other"),
        "403": status(403),
        "huge": good + b"x" * (1 << 20),
    }
    mirrors.put("one", which, bad[how])
    with pytest.raises(kind) as excinfo:
        mirrors.lock("one")
    assert excinfo.value.fields.get("reason") == reason
    if how == "of another file":
        assert excinfo.value.code in ("stage-digests-lack-file", "stage-pointer-empty")
    assert excinfo.value.hint
    assert not (mirrors.folder / "config.lock").exists()
    assert mirrors.lock("one", "two").sha512 == digest(mirrors.tarball)
    assert mirrors.skipped_urls() == [mirrors.server.url(mirrors.path("one", which))]


# A build that the config names
def test_lock_of_a_configured_build_needs_no_pointer(mirrors: StageMirrors, tarball: Path) -> None:
    mirrors.publish("one", OLD)
    mirrors.publish("one", NEW)
    mirrors.requests()
    pin = mirrors.lock(flavour="openrc", key="stages", build=OLD)
    assert pin.path == f"{OLD}/{STEM}-{OLD}.tar.xz"
    assert pin.size is None
    assert mirrors.requests() == [f"one {STEM}-{OLD}.tar.xz.DIGESTS"]
    assert describe_tree(mirrors.extract()) == describe_tree(tarball.parent / "root")


def test_lock_with_the_digests_of_another_build_is_refused(mirrors: StageMirrors) -> None:
    mirrors.publish("one", OLD)
    path = mirrors.path("one", f"{OLD}/{STEM}-{OLD}.tar.xz")
    for ending in ("", ".DIGESTS"):
        answer = mirrors.server.answers[f"{path}{ending}"]
        mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz{ending}", answer)
    with refused(NotTrusted, "stage-digests-lack-file", name=f"{STEM}-{NEW}.tar.xz"):
        mirrors.lock(flavour="openrc", key="stages", build=NEW)


def test_lock_of_a_build_that_no_mirror_has_fails(mirrors: StageMirrors) -> None:
    mirrors.publish("one", NEW)
    with pytest.raises(NotOnMirrors):
        mirrors.lock("one", "two", flavour="openrc", key="stages", build=OLD)


# Without digests: the tarball's own signature
def sign_tarball(mirrors: StageMirrors, who: str = "good", data: bytes | None = None) -> None:
    """Replace the digests of the newest build on mirror one with a signature of its tarball."""
    name = f"{NEW}/{STEM}-{NEW}.tar.xz"
    mirrors.put("one", f"{name}.DIGESTS", None)
    signature = mirrors.keys.sign(who=who, data=data or mirrors.tarball, at=KEYS_CREATED + 9)
    mirrors.put("one", f"{name}.asc", signature)


@pytest.mark.parametrize(
    ("who", "data", "reason"),
    [
        ("other", None, "signing-key-not-pinned"),
        ("good", b"something else", "signature-wrong"),
    ],
)
def test_lock_without_digests_refuses_a_bad_signature_of_the_tarball(
    mirrors: StageMirrors, who: str, data: bytes | None, reason: str
) -> None:
    mirrors.publish("one")
    sign_tarball(mirrors, who, data)
    with refused(NotTrusted, "signature-not-trusted", reason=reason):
        mirrors.lock()
    assert not (mirrors.folder / "config.lock").exists()
    assert names(mirrors.site().layout.downloads) == []


def test_lock_without_digests_pins_the_signed_tarball_and_keeps_it(mirrors: StageMirrors) -> None:
    mirrors.publish("one")
    sign_tarball(mirrors)
    site = mirrors.site()
    trees.resolve(site, named_inputs(site))
    assert locks.read(site.layout).seeds["s"].sha512 == digest(mirrors.tarball)
    assert names(site.layout.downloads) == [f"{STEM}-{NEW}.tar.xz"]
    mirrors.requests()
    mirrors.extract()
    assert mirrors.requests() == []


# The tarball
BAD_TARBALLS: dict[str, Callable[[bytes], bytes | Answer]] = {
    "truncated": lambda data: file(data, pieces=len(data) // 2),
    "one byte changed": lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
    "endless": lambda _: endless,
    "redirect loop": lambda _: lambda h: h.head(302, f"Location: {h.path}", "Content-Length: 0"),
    "html": lambda _: HTML,
    "404": lambda _: status(404),
    "503": lambda _: status(503),
    "longer": lambda data: data + bytes(512),
}


@pytest.mark.parametrize("bad", BAD_TARBALLS)
def test_seed_with_another_tarball_than_pinned_uses_the_next_mirror(
    mirrors: StageMirrors, tarball: Path, bad: str
) -> None:
    mirrors.publish("one")
    mirrors.publish("two")
    mirrors.lock("one", "two")
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz", BAD_TARBALLS[bad](mirrors.tarball))
    with pytest.raises((NotTrusted, DownloadFailed)) as excinfo:
        chroots.extract_seed(mirrors.site("one"), "s", reading_lock(mirrors.site("one")))
    if isinstance(excinfo.value, NotTrusted):
        assert excinfo.value.code == "stage-not-on-mirrors"
    assert excinfo.value.hint
    layout = mirrors.site().layout
    assert names(layout.seed("x").parent) == []
    assert describe_tree(mirrors.extract("one", "two")) == describe_tree(tarball.parent / "root")


def test_seed_from_a_mirror_that_stalls_uses_the_next_mirror(
    mirrors: StageMirrors, tarball: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_IDLE_SECONDS", 0.3)
    mirrors.publish("one")
    mirrors.publish("two")
    mirrors.lock("one", "two")
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz", stalling)
    assert describe_tree(mirrors.extract("one", "two")) == describe_tree(tarball.parent / "root")


def test_seed_without_a_reachable_mirror_fails(mirrors: StageMirrors) -> None:
    mirrors.publish("one")
    mirrors.lock()
    mirrors.server.shutdown()
    mirrors.server.server_close()
    with pytest.raises(DownloadFailed):
        mirrors.extract()


# CONTENTS.gz
def contents(tarball: Path) -> bytes:
    tar = subprocess.run(["tar", "-tvf", tarball], capture_output=True, check=True)
    return gzip.compress(tar.stdout, mtime=0)


def test_lock_pins_a_listing_that_the_digests_cover(mirrors: StageMirrors, tarball: Path) -> None:
    mirrors.publish("one", listing=contents(tarball))
    pin = mirrors.lock()
    assert (pin.contents, pin.contents_sha512) == (
        f"{NEW}/{STEM}-{NEW}.tar.xz.CONTENTS.gz",
        digest(contents(tarball)),
    )
    mirrors.extract()
    assert "stage-contents-missing" not in [note.code for note in mirrors.notes]


def test_seed_with_a_listing_of_another_stage_fails(mirrors: StageMirrors, tarball: Path) -> None:
    text = gzip.decompress(contents(tarball)).replace(b"emerge", b"merge")
    mirrors.publish("one", listing=gzip.compress(text))
    mirrors.lock()
    with refused(BinmillError, "stage-differs-from-contents"):
        mirrors.extract()
    mirrors.nothing_left(mirrors.site())
    assert names(mirrors.site().layout.seed("x").parent) == []


@pytest.mark.parametrize("answer", [None, HTML, status(503)])
def test_seed_without_the_pinned_listing_goes_on_with_a_note(
    mirrors: StageMirrors, tarball: Path, answer: Any
) -> None:
    mirrors.publish("one", listing=contents(tarball))
    mirrors.lock()
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz.CONTENTS.gz", answer)
    assert describe_tree(mirrors.extract()) == describe_tree(tarball.parent / "root")
    missing = Note("stage-contents-missing", {"name": f"{STEM}-{NEW}.tar.xz.CONTENTS.gz"})
    assert missing in mirrors.notes


def test_seed_ignores_a_listing_that_is_not_signed(mirrors: StageMirrors) -> None:
    mirrors.publish("one")
    mirrors.put("one", f"{NEW}/{STEM}-{NEW}.tar.xz.CONTENTS.gz", b"lies")
    assert mirrors.lock().contents is None
    mirrors.extract()
    assert not [path for path in mirrors.requests() if path.endswith(".gz")]


# A file of the site
def local_file(mirrors: StageMirrors, tarball: Path, name: str = "stage4.tar.xz") -> dict[str, Any]:
    (mirrors.folder / name).write_bytes(tarball.read_bytes())
    return {"file": name, "sha512": digest(tarball.read_bytes())}


def test_seed_of_a_local_file_extracts_it_without_a_request(
    mirrors: StageMirrors, tarball: Path
) -> None:
    seed = local_file(mirrors, tarball, "caf\u00e9 stage4.tar.xz")
    pin = mirrors.lock(**seed)
    assert pin == SeedPin(path=seed["file"], sha512=seed["sha512"])
    assert describe_tree(mirrors.extract()) == describe_tree(tarball.parent / "root")
    assert mirrors.requests() == []
    assert (mirrors.folder / seed["file"]).exists()


def test_seed_of_a_changed_local_file_is_refused(mirrors: StageMirrors, tarball: Path) -> None:
    seed = local_file(mirrors, tarball)
    mirrors.lock(**seed)
    with (mirrors.folder / "stage4.tar.xz").open("ab") as more:
        more.write(bytes(4))  # padding that xz takes
    with refused(NotTrusted, "stage-not-pinned", archive="stage4.tar.xz"):
        mirrors.extract()
    mirrors.nothing_left(mirrors.site())
    assert names(mirrors.site().layout.seed("x").parent) == []


@pytest.mark.parametrize("there", [False, True])
def test_seed_of_an_unreadable_local_file_fails(
    mirrors: StageMirrors, tarball: Path, there: bool
) -> None:
    seed = local_file(mirrors, tarball)
    (mirrors.folder / "stage4.tar.xz").unlink()
    if there:
        (mirrors.folder / "stage4.tar.xz").mkdir()
    mirrors.lock(**seed)
    with refused(BinmillError, "stage-file-unreadable", file=mirrors.folder / "stage4.tar.xz"):
        mirrors.extract()


def test_seed_with_setuid_needs_the_path_in_the_config(mirrors: StageMirrors) -> None:
    root = sample_stage(mirrors.folder / "root")
    (root / "var/queue").write_text("")
    (root / "var/queue").chmod(0o4755)
    archive = pack_stage(root, mirrors.folder / "own.tar.zst")
    seed = {"file": "own.tar.zst", "sha512": digest(archive.read_bytes())}
    mirrors.lock(**seed)
    with refused(NotTrusted, "stage-refused", reason="entry-privileged-place"):
        mirrors.extract()
    mirrors.seed = {**seed, "setuid": ["/var/queue"]}
    assert (mirrors.extract() / "var/queue").stat().st_mode & 0o4000


# Kills
def kill(mirrors: StageMirrors, how: signal.Signals = signal.SIGKILL) -> None:
    """Kill `doit seed:s` after it has unpacked everything, before the final rename."""
    config = mirrors.site().config.model_dump_json(exclude_none=True)
    sign = mirrors.folder / "paused"
    with subprocess.Popen(
        python(pause_before_sanity, mirrors.folder, sign, config),
        cwd=PROJECT,
    ) as process:
        paused = eventually(sign.exists)
        process.send_signal(how)
    assert paused
    if how != signal.SIGKILL:
        return
    assert [path.name[0] for path in mirrors.site().layout.seed("x").parent.iterdir()] == ["."]


def test_seed_after_a_kill_uses_the_verified_tarball(mirrors: StageMirrors, tarball: Path) -> None:
    mirrors.publish("one")
    mirrors.lock()
    kill(mirrors)
    mirrors.requests()
    assert describe_tree(mirrors.extract()) == describe_tree(tarball.parent / "root")
    assert mirrors.requests() == []


def test_seed_after_a_kill_and_another_pin_deletes_the_leftovers(
    mirrors: StageMirrors, tarball: Path
) -> None:
    mirrors.publish("one", OLD)
    mirrors.lock()
    kill(mirrors)
    mirrors.tarball = pack_stage(
        tarball.parent / "root", mirrors.folder / "new.tar.xz", packer=("xz", "-1")
    ).read_bytes()
    mirrors.publish("one", NEW)
    site = mirrors.site()
    trees.resolve(site, named_inputs(site))
    chroots.extract_seed(site, "s", reading_lock(site))
    identifier = digest(mirrors.tarball)[:32]
    assert names(site.layout.seed("x").parent) == [identifier, f"{identifier}.listing"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_seed_ended_by_a_signal_leaves_nothing(
    mirrors: StageMirrors, tarball: Path, how: signal.Signals
) -> None:
    mirrors.publish("one")
    mirrors.lock()
    kill(mirrors, how)
    mirrors.nothing_left(mirrors.site())
    assert names(mirrors.site().layout.seed("x").parent) == []
    assert describe_tree(mirrors.extract()) == describe_tree(tarball.parent / "root")


def test_two_seeds_of_one_stage_at_once_extract_it_once(
    mirrors: StageMirrors, tarball: Path
) -> None:
    """The second waits for the first, and uses its result."""
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
    results: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda n=n: results.append(chroots.extract_seed(site, n, reading_lock(site)))
        )
        for n in "st"
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert results[0] == results[1]
    assert describe_tree(site.layout.seed(pin.sha512)) == describe_tree(tarball.parent / "root")
    mirrors.nothing_left(site)
