"""The commands distfile, user and serve, on files that a chroot may have left."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from doit.exceptions import InvalidCommand

from tasks import records
from tasks.commands.serving import Distfile, Serve, User
from tasks.config.tables import Config
from tasks.errors import BinmillError, NotTrusted, Stale
from tasks.flow import mirror
from tasks.layout import Layout
from tasks.records import OVERLAY, TREE, OverlayRecord, TreeRecord
from tasks.serve import certificates, distfiles
from tasks.site import Site
from tests.kit.configs import THREE_CHROOTS, three_chroots_with
from tests.kit.files import names
from tests.kit.refused import refused
from tests.kit.set_clock import SetClock
from tests.kit.site_commands import run_command

CONTENT = b"the bytes of upstream"
COMMIT = "a" * 40
DAY = 86400


def manifest(**files: bytes) -> str:
    return "".join(
        f"DIST {name.replace('_', '.')} {len(data)} BLAKE2B {hashlib.blake2b(data).hexdigest()} "
        f"SHA512 {hashlib.sha512(data).hexdigest()}\n"
        for name, data in files.items()
    )


@pytest.fixture
def site(layout: Layout) -> Site:
    """A site whose locked tree has a free package and a restricted one, with an empty overlay."""
    raw: dict[str, Any] = three_chroots_with(
        ("access", {"groups": ["site:acme", "role:java"], "restricted": "role:java"}),
        ("serve", {"certificate": "cert.pem", "certificate_key": "key.pem"}),
    )
    assert raw["overlays"] == THREE_CHROOTS["overlays"]
    records.save(layout, TREE(), TreeRecord("20260101", COMMIT, 0))
    records.save(layout, OVERLAY("ours"), OverlayRecord("b" * 40))
    tree = layout.export(COMMIT)
    for commit in (COMMIT, "b" * 40):
        layout.export(commit).mkdir(parents=True)
    for name, restrict in (("free", ""), ("closed", "fetch")):
        (tree / "app-misc" / name).mkdir(parents=True)
        (tree / f"app-misc/{name}/{name}-1.ebuild").write_text("")
        (tree / f"app-misc/{name}/Manifest").write_text(manifest(**{f"{name}_tar": CONTENT}))
        (tree / "metadata/md5-cache/app-misc").mkdir(parents=True, exist_ok=True)
        (tree / f"metadata/md5-cache/app-misc/{name}-1").write_text(f"RESTRICT={restrict}\n")
    layout.distfiles.mkdir(parents=True)
    return Site(layout, Config.model_validate(raw))


def test_sync_imports_public_files_that_builds_fetched(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, public = site.layout.distfiles, site.layout.mirror("public")
    for name in ("free.tar", "closed.tar", "unnamed.tar"):
        (inside / name).write_bytes(CONTENT)
    run_command(Distfile, site, "sync")
    hashed = public / distfiles.hashed_path("free.tar")
    assert hashed.read_bytes() == CONTENT
    assert hashed.samefile(public / "free.tar")
    assert not hashed.samefile(inside / "free.tar")  # a chroot can still write to that one
    assert distfiles.names(public) == {"free.tar"}
    assert (public / "layout.conf").read_text() == distfiles.LAYOUT_CONF
    assert "1 added, 0 refused, 0 deleted" in capsys.readouterr().out
    run_command(Distfile, site, "sync")
    assert "0 added, 0 refused" in capsys.readouterr().out
    assert not [name for name in names(public) if name.endswith((".new", ".link"))]


def test_mirror_task_imports_public_files_of_every_chroot(site: Site) -> None:
    """Also from the DISTDIR of a chroot in groups, but no restricted file."""
    own = site.layout.restricted_distfiles("java")
    own.mkdir(parents=True)
    (own / "closed.tar").write_bytes(CONTENT)
    (own / "free.tar").write_bytes(CONTENT)
    (own / "shared.tar").symlink_to("/var/cache/distfiles.shared/shared.tar")
    inputs = records.reading(site.layout, mirror.tree_keys(site))
    record = mirror.fill(site, inputs)
    assert record.files == {"public": 1, "site:acme": 0, "role:java": 0}
    assert distfiles.names(site.layout.mirror("public")) == {"free.tar"}
    assert mirror.fill(site, inputs) == record


@pytest.mark.parametrize("kind", ["other bytes", "half", "link", "hard link", "folder", "fifo"])
def test_sync_refuses_a_file_that_a_chroot_replaced(
    site: Site, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site.layout.distfiles / "free.tar"
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)  # even with this content: the host never follows a link
    if kind == "other bytes":
        path.write_bytes(CONTENT[::-1])
    elif kind == "half":
        path.write_bytes(CONTENT[:5])
    elif kind == "link":
        path.symlink_to(secret)
    elif kind == "hard link":
        path.hardlink_to(secret)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    run_command(Distfile, site, "sync")
    assert "0 added, 1 refused" in capsys.readouterr().out
    assert names(site.layout.mirror("public")) == [".unnamed.json", "layout.conf"]


def test_add_imports_a_restricted_file_for_a_group(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "closed.tar"
    file.write_bytes(CONTENT)
    run_command(Distfile, site, "add", str(file))  # [access] restricted
    run_command(Distfile, site, "add", str(file), "--group", "site:acme")
    for group in ("role:java", "site:acme"):
        assert (site.layout.mirror(group) / "closed.tar").read_bytes() == CONTENT
    assert not site.layout.mirror("public").exists()
    (tmp_path / "another").hardlink_to(file)  # an administrator's file may have two names
    run_command(Distfile, site, "add", str(file), "--group", "public")
    assert "closed.tar: matches its Manifest, for role:java" in capsys.readouterr().out


def test_add_refuses_a_file_that_no_manifest_matches(site: Site, tmp_path: Path) -> None:
    def add(path: Path) -> None:
        run_command(Distfile, site, "add", str(path))

    other, closed = tmp_path / "other.tar", tmp_path / "closed.tar"
    for path in (other, closed):
        path.write_bytes(b"x" * len(CONTENT))
    with refused(BinmillError, "distfile-not-listed", name="other.tar"):
        add(other)
    with refused(NotTrusted, "distfile-digest-wrong", name="closed.tar"):
        add(closed)
    closed.write_bytes(CONTENT[:-1])
    with refused(NotTrusted, "distfile-size-wrong", size=20, expected=["21"]):
        add(closed)
    missing, folder = tmp_path / "none/closed.tar", tmp_path / "folder/closed.tar"
    with refused(BinmillError, "distfile-missing", path=missing):
        add(missing)
    folder.mkdir(parents=True)
    with refused(BinmillError, "distfile-not-a-file", path=folder):
        add(folder)
    groups = ["public", "site:acme", "role:java"]
    with refused(BinmillError, "distfile-group-unknown", group="site:none", groups=groups):
        run_command(Distfile, site, "add", "x", "--group", "site:none")
    with pytest.raises(InvalidCommand, match="FILE"):
        run_command(Distfile, site, "add")
    assert distfiles.names(site.layout.mirror("role:java")) == set()


def test_sync_without_an_overlay_names_its_task(site: Site) -> None:
    site.layout.record("overlay:ours").unlink()
    with refused(Stale, "record-missing", task="overlay:ours"):
        run_command(Distfile, site, "sync")


def test_unlisted_file_is_deleted_after_keep_days(site: Site, clock: SetClock) -> None:
    public, now = site.layout.mirror("public"), time.time()
    (site.layout.distfiles / "free.tar").write_bytes(CONTENT)
    run_command(Distfile, site, "sync")
    (site.layout.export(COMMIT) / "app-misc/free/Manifest").write_text("")
    run_command(Distfile, site, "sync")
    assert list(json.loads((public / ".unnamed.json").read_text())) == ["free.tar"]
    clock.set(now + 89 * DAY)
    run_command(Distfile, site, "sync")
    assert distfiles.names(public) == {"free.tar"}
    with (public / "free.tar").open("rb") as slow:  # a download that has begun
        clock.set(now + 91 * DAY)
        run_command(Distfile, site, "sync")
        assert slow.read() == CONTENT
    assert names(public) == [".unnamed.json", "layout.conf"]


def test_user_with_password_is_added_listed_and_removed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(User, site, "add", "anna", "--group", "site:acme", "--group", "role:java")
    password = capsys.readouterr().out.splitlines()[1]
    assert len(password) >= 43
    java = site.layout.passwords / "role.java"
    assert java.read_text().startswith("anna:$6$")
    assert java.stat().st_mode & 0o777 == 0o400
    run_command(User, site, "list")
    assert capsys.readouterr().out.split() == ["anna", "role:java", "site:acme", "password"]
    run_command(User, site, "add", "anna", "--group", "site:acme")
    assert capsys.readouterr().out.splitlines()[1] != password
    assert java.read_text() == ""
    run_command(User, site, "remove", "anna")
    assert (site.layout.passwords / "site.acme").read_text() == ""
    state = [f for f in site.layout.site.rglob("*") if f.is_file()]
    assert state
    assert not any(password.encode() in f.read_bytes() for f in state)


def test_user_with_certificate_is_added_listed_and_removed(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(User, site, "add", "ca", "--group", "role:java", "--certificate", "--days", "9")
    file = site.layout.certificates / "ca.pem"
    assert f"{file} is ca's key and certificate, until 20" in capsys.readouterr().out
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().count("-----BEGIN") == 2
    for path in site.layout.certificates.iterdir():
        assert path.stat().st_mode & 0o077 == 0 or "PRIVATE" not in path.read_text()
    assert site.layout.certificates.stat().st_mode & 0o777 == 0o700
    assert (site.layout.passwords / "role.java").read_text() == ""
    run_command(User, site, "list")
    assert "role:java  certificate until 20" in capsys.readouterr().out
    run_command(Serve, site, "--print")
    block = capsys.readouterr().out
    serial = json.loads(site.layout.users.read_text())["ca"]["serial"]
    assert f'"{serial}" off;' in block
    assert "ssl_verify_client optional;" in block
    entries = json.loads(site.layout.users.read_text())
    entries["ca"]["until"] = "2020-01-01"
    site.layout.users.write_text(json.dumps(entries))
    run_command(User, site, "list")
    assert "role:java  certificate expired 2020-01-01" in capsys.readouterr().out
    run_command(User, site, "add", "ca", "--group", "role:java")  # a password instead
    assert not file.exists()
    assert "serial" not in site.layout.users.read_text()
    run_command(User, site, "add", "ca", "--group", "role:java", "--certificate")
    assert (site.layout.passwords / "role.java").read_text() == ""
    run_command(User, site, "remove", "ca")
    assert not file.exists()
    capsys.readouterr()
    run_command(Serve, site, "--print")
    assert "ssl_verify_client" not in capsys.readouterr().out


def test_ca_that_cannot_sign_is_reported(site: Site) -> None:
    words = ["--group", "role:java", "--certificate"]
    run_command(User, site, "add", "anna", *words)
    key = site.layout.certificates / "_ca.key"
    key.rename(key.with_name("aside"))
    with refused(BinmillError, "client-ca-without-key", path=key):
        run_command(User, site, "add", "jan", *words)
    key.with_name("aside").rename(key)
    certificate = site.layout.certificates / certificates.CA_FILE
    certificate.write_text("damaged")
    with refused(BinmillError, "client-ca-unusable", path=certificate):
        run_command(User, site, "add", "jan", *words)
    assert "jan" not in site.layout.users.read_text()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("add anna", "user-without-group"),
        ("add anna --group site:none", "user-group-unknown"),
        ("add anna --group public", "user-group-unknown"),
        ("add a:b --group site:acme", "user-name-invalid"),
        ("add a\nb --group site:acme", "user-name-invalid"),
        ("add anna --certificate", "user-without-group"),
        ("add anna --group site:acme --certificate --days 0", "certificate-days-invalid"),
        ("remove anna", "user-unknown"),
    ],
)
def test_user_command_with_invalid_user_or_group_is_refused(
    site: Site, words: str, code: str
) -> None:
    with refused(BinmillError, code):
        run_command(User, site, *words.split(" "))
    assert not site.layout.users.exists()


@pytest.mark.parametrize(
    "words",
    [
        "add --group site:acme",
        "add anna --group site:acme --certificate --days x",
        "add anna jan --group site:acme",
        "rename anna",
        "remove",
        "list anna",
        "",
    ],
)
def test_user_command_with_invalid_words_prints_usage(site: Site, words: str) -> None:
    with pytest.raises(InvalidCommand, match="next: doit user"):
        run_command(User, site, *words.split())
    assert not site.layout.users.exists()


def test_damaged_list_of_users_is_reported(site: Site) -> None:
    site.layout.users.parent.mkdir()
    site.layout.users.write_text("[]")
    with refused(BinmillError, "users-file-damaged", path=site.layout.users):
        run_command(User, site, "list")


def test_print_writes_the_server_block(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(Serve, site, "--print")
    block = capsys.readouterr().out
    assert f'root "{site.layout.state}";' in block
    assert f'ssl_certificate "{site.layout.site}/cert.pem";' in block
    assert f'auth_basic_user_file "{site.layout.passwords}/role.java";' in block


def test_binhost_with_a_package_of_another_group_is_not_served(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    current = site.layout.binhost("base") / "current"
    (current / "public").mkdir(parents=True)
    (current / "public" / "Packages").write_text(
        "PACKAGES: 1\n\nCPV: a-b/c-1\nPATH: a-b/c/c-1-1.gpkg.tar\nRESTRICT: bindist\n\n"
    )
    packages = ["a-b/c-1"]
    with refused(NotTrusted, "location-forbidden", path="base", group="public", packages=packages):
        run_command(Serve, site, "--print")
    with refused(NotTrusted, "location-forbidden", packages=packages):
        run_command(Serve, site)
    earlier = (
        'try_files "/binhost/base/current/public/$inner" "/binhost/base/previous/public/$inner"'
    )
    current.rename(
        current.with_name("previous")
    )  # withdrawn: not served as the previous one either
    run_command(Serve, site, "--print")
    assert earlier not in capsys.readouterr().out
    (current.with_name("previous") / "public" / "Packages").write_text("PACKAGES: 0\n\n")
    run_command(Serve, site, "--print")
    assert earlier in capsys.readouterr().out
