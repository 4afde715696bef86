"""/etc/portage as Portage will read it.

`read_back` is a faithful, short copy of portage.util.getconfig: shlex with Portage's settings,
then varexpand. Portage itself is not on PyPI as something that a test could import cheaply; the
end-to-end test has the real one.
"""

from __future__ import annotations

import configparser
import os
from pathlib import Path
from typing import Any

import pytest

from tasks.config.tables import Config
from tasks.errors import BinmillError
from tasks.flow.etc import generate
from tasks.layout import Layout
from tasks.portage import etc_portage, source_date
from tasks.records import EtcRecord, reading
from tasks.site import Site, identity
from tests.kit.configs import three_chroots_with
from tests.kit.files import names
from tests.kit.make_conf import getconfig
from tests.kit.refused import refused

GUIDE = ["buildpkg", "cgroup", "ipc-sandbox", "network-sandbox", "parallel-fetch"]


def config(*changes: tuple[str, Any]) -> Config:
    return Config.model_validate(three_chroots_with(*changes))


def make_conf(*changes: tuple[str, Any], name: str = "base") -> dict[str, str]:
    return getconfig(etc_portage.files(config(*changes), name)["make.conf"])


def test_make_conf_of_a_base() -> None:
    variables = make_conf(("mirrors.gentoo", ["https://a.example/g", "https://b.example/g"]))
    assert variables.pop("FEATURES").split() == [*GUIDE, "-news"]
    assert variables == {
        "CFLAGS": "-O2 -pipe",
        "CXXFLAGS": "-O2 -pipe",
        "TONE": "base",
        "DISTDIR": "/var/cache/distfiles",
        "PKGDIR": "/var/cache/binpkgs",
        "PORTAGE_LOGDIR": "/var/log/portage",
        "BINPKG_FORMAT": "gpkg",
        "GENTOO_MIRRORS": "https://a.example/g https://b.example/g",
        "USE": "ssl -gtk",
    }


def test_features_are_appended_to_the_profiles() -> None:
    text = etc_portage.files(config(), "base")["make.conf"]
    assert f'FEATURES="${{FEATURES}} {" ".join(GUIDE)} -news"\n' in text
    assert text.count("FEATURES=") == 1
    client = etc_portage.files(config(), "base", features=())["make.conf"]
    assert 'FEATURES="${FEATURES} -news"\n' in client


def test_duplicate_feature_is_written_once() -> None:
    variables = make_conf(("chroots.base.features", ["test", "cgroup"]))
    assert variables["FEATURES"].split() == [*GUIDE, "test"]


def test_stack_inherits_and_overrides() -> None:
    java = etc_portage.files(config(), "java")
    assert getconfig(java["make.conf"])["USE"] == "ssl -gtk -ssl"
    assert getconfig(java["make.conf"])["TONE"] == "java"
    assert java["package.use/binmill"].splitlines()[1:] == [
        "dev-lang/python sqlite -sqlite",
        "x/y z",
    ]
    tomcat = etc_portage.files(config(), "tomcat")
    assert getconfig(tomcat["make.conf"])["USE"] == "-gtk -ssl ssl"
    assert tomcat["package.use/binmill"] == java["package.use/binmill"]


def test_unset_key_has_no_file() -> None:
    generated = etc_portage.files(config(("chroots.base.package_use", None)), "base")
    assert generated.keys() == {
        "binrepos.conf",
        "make.conf",
        "repos.conf/binmill.conf",
        *source_date.files(),
    }
    text = generated["make.conf"]
    assert "ACCEPT_LICENSE" not in text
    assert "ACCEPT_KEYWORDS" not in text


def test_source_date_leaves_room_for_bashrcs_of_a_user() -> None:
    own = {"bashrc": "a", "profile/profile.bashrc": "b", "profile/package.bashrc/own": "c"}
    generated = etc_portage.files(config(), "base")
    assert etc_portage.merge(generated, own).keys() == generated.keys() | own.keys()
    [line] = generated["profile/package.bashrc/binmill"].splitlines()[1:]
    atom, name = line.split()
    assert atom == "*/*"
    assert "export SOURCE_DATE_EPOCH=" in generated[f"profile/bashrc/{name}"]


def test_list_in_env_counts_where_the_key_is_empty() -> None:
    env = {"USE": "-X", "ACCEPT_LICENSE": "*", "PKGDIR": "/elsewhere"}
    changes = (("chroots.base.env", env), ("chroots.base.use", None))
    variables = make_conf(*changes)
    assert (variables["USE"], variables["ACCEPT_LICENSE"]) == ("-X", "*")
    assert variables["PKGDIR"] == "/var/cache/binpkgs"
    assert make_conf(("chroots.base.env", env))["USE"] == "ssl -gtk"


def test_every_table_and_list_has_its_file() -> None:
    generated = etc_portage.files(
        config(
            ("mirrors.local", ["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"]),
            ("chroots.base.package_accept_keywords", {"b/b": ["~amd64"], "=a/a-1": ["**"]}),
            ("chroots.base.package_license", {"a/a": ["EULA", "x y"]}),
            ("chroots.base.package_mask", [">=a/a-2", "b/b"]),
            ("chroots.base.package_unmask", ["=b/b-1"]),
            ("chroots.base.accept_license", ["-*", "@FREE"]),
            ("chroots.base.accept_keywords", ["~amd64"]),
            ("chroots.base.test", ["a/a", ">=b/b-1"]),
        ),
        "base",
        binrepos="[x]\nsync-uri = http://127.0.0.1/x\n",
    )
    body = {path: text.split("\n", 1)[1] for path, text in generated.items()}
    assert all(text.startswith("# Generated by binmill") for text in generated.values())
    assert body["mirrors"] == "local http://127.0.0.1:1/a http://127.0.0.1:1/b\n"
    assert body["package.accept_keywords/binmill"] == "=a/a-1 **\nb/b ~amd64\n"
    assert body["package.license/binmill"] == "a/a EULA x y\n"
    assert body["package.mask/binmill"] == ">=a/a-2\nb/b\n"
    assert body["package.unmask/binmill"] == "=b/b-1\n"
    assert body["package.env/binmill"] == "a/a binmill-test.conf\n>=b/b-1 binmill-test.conf\n"
    assert body["env/binmill-test.conf"] == 'FEATURES="test"\n'
    assert body["binrepos.conf"] == "[x]\nsync-uri = http://127.0.0.1/x\n"
    variables = getconfig(generated["make.conf"])
    assert (variables["ACCEPT_LICENSE"], variables["ACCEPT_KEYWORDS"]) == ("-* @FREE", "~amd64")


def test_variables_of_a_client_override() -> None:
    generated = etc_portage.files(config(), "base", variables={"USE_X": "1", "PKGDIR": "/p"})
    variables = getconfig(generated["make.conf"])
    assert (variables["USE_X"], variables["PKGDIR"]) == ("1", "/p")


def test_local_mirror_of_the_site_comes_first() -> None:
    own = "https://127.0.0.1:1/mirror/role.java"
    generated = etc_portage.files(config(), "base", local=(own,))
    assert generated["mirrors"].endswith(f"local {own}\n")
    more = config(("mirrors.local", ["http://127.0.0.1:2"]))
    generated = etc_portage.files(more, "base", local=(own,))
    assert generated["mirrors"].endswith(f"local {own} http://127.0.0.1:2\n")
    assert "mirrors" not in etc_portage.files(config(), "base")


def test_repos_conf() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(etc_portage.files(config(), "java")["repos.conf/binmill.conf"])
    assert parser.sections() == ["gentoo", "ours"]
    assert dict(parser["gentoo"]) == {
        "main-repo": "gentoo",
        "location": "/var/db/repos/gentoo",
        "auto-sync": "no",
    }
    assert parser["ours"]["location"] == "/var/db/repos/ours"


HOSTILE = [
    'a"; touch /tmp/x; "',
    "$(id) `id`",
    "${HOME} $HOME $ $$ ${ $}",
    "\\",
    "\\\\",
    "ends in \\",
    "\\$HOME",
    "\\\\$HOME",
    '\\"',
    "\\'$HOME'",
    "it's $5",
    "it's 'quoted $5' and \\$6",
    "\"double '$7' \\\"",
    "'single \"$8\" \\' $9",
    "''\"\"",
    "\\n \\t \\x",
    "# no comment",
    "source",
    "source /etc/passwd",
    "export X",
    "=",
    "FOO=bar",
    "-Wl,-rpath,'$ORIGIN'/lib -DX=\\\"y\\\"",
    "\u4e2d\u6587 \u00e9",
    " leading and trailing ",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_value_is_read_back(value: str) -> None:
    env = {"AAA": value, "HOME": "expanded", "ORIGIN": "expanded", "ZZZ": "end"}
    variables = make_conf(("chroots.base.env", env))
    assert variables["AAA"] == value
    assert variables["ZZZ"] == "end"
    assert variables["USE"] == "ssl -gtk"


def test_use_flag_called_source_is_read_back() -> None:
    """Every Java package has it; for shlex it is a command that reads a file."""
    assert make_conf(("chroots.base.use", ["source"]))["USE"] == "source"


def test_every_combination_of_special_characters_is_read_back() -> None:
    letters = ["\\", "'", '"', "$", "{", "}", "A", "`", "#", " "]
    words = [a + b + c + d for a in letters for b in letters for c in letters for d in "$'\\"]
    text = etc_portage.make_conf(
        config(), config().chroots["base"], (), {f"V{n}": word for n, word in enumerate(words)}
    )
    variables = getconfig(text)
    assert [word for n, word in enumerate(words) if variables[f"V{n}"] != word] == []


@pytest.mark.parametrize(
    ("profile", "link"),
    [
        ("default/linux/amd64/23.0", "/var/db/repos/gentoo/profiles/default/linux/amd64/23.0"),
        ("ours:lab/x", "/var/db/repos/ours/profiles/lab/x"),
    ],
)
def test_profile_link_leads_into_the_repository(profile: str, link: str) -> None:
    assert etc_portage.profile_link(config(("chroots.base.profile", profile)), "base") == link
    assert etc_portage.profile_link(config(("chroots.base.profile", profile)), "tomcat") == link


@pytest.mark.parametrize("profile", ["../x", "a/../../x", "..", "ours:../x", "nowhere:x", "a:b:c"])
def test_malformed_profile_is_refused(profile: str) -> None:
    with refused(BinmillError, "profile-malformed", chroot="base", profile=profile):
        etc_portage.profile_link(config(("chroots.base.profile", profile)), "base")


def test_portage_dir_is_merged(tmp_path: Path) -> None:
    own = tmp_path / "portage"
    (own / "package.use").mkdir(parents=True)
    (own / "profile").mkdir()
    (own / "package.use" / "mine").write_text("a/b c\n")
    (own / "profile" / "package.provided").write_text("sys-apps/x-1\n")
    (own / "bashrc").write_text("\u00e9\n", encoding="utf-8")
    contents = etc_portage.read_portage_dir(own)
    assert sorted(contents) == ["bashrc", "package.use/mine", "profile/package.provided"]
    merged = etc_portage.merge({"make.conf": "x", "package.use/binmill": "y"}, contents)
    assert merged == {"make.conf": "x", "package.use/binmill": "y", **contents}


@pytest.mark.parametrize(
    "path", ["make.conf", "make.conf/01", "package.use", "make.profile", "make.profile/parent"]
)
def test_portage_dir_file_that_clashes_is_refused(path: str) -> None:
    generated = {"make.conf": "x", "package.use/binmill": "y"}
    with refused(BinmillError, "portage-dir-clash", paths=[path]):
        etc_portage.merge(generated, {path: "mine", "bashrc": "z"})
    assert etc_portage.merge(generated, {"make.conf.d": "", "package.usex/y": ""})


def test_portage_dir_of_a_stack_is_on_top_of_its_bases() -> None:
    base = {"bashrc": "base", "package.env": "base", "env/x.conf": "base"}
    assert etc_portage.stacked([]) == {}
    assert etc_portage.stacked([base, {"bashrc": "stack", "env/y.conf": "stack"}]) == {
        **base,
        "bashrc": "stack",
        "env/y.conf": "stack",
    }


@pytest.mark.parametrize("path", ["package.env/stack", "env", "bashrc/a/b"])
def test_file_of_a_stack_that_is_a_directory_of_its_base_is_refused(path: str) -> None:
    base = {"bashrc": "base", "package.env": "base", "env/x.conf": "base"}
    with refused(BinmillError, "portage-dirs-clash", paths=[path]):
        etc_portage.stacked([base, {path: "stack", "env.d": "stack"}])


def test_portage_dir_that_is_missing_is_refused(tmp_path: Path) -> None:
    with refused(BinmillError, "portage-dir-missing", path=tmp_path / "portage"):
        etc_portage.read_portage_dir(tmp_path / "portage")


@pytest.mark.parametrize("target", ["/etc/shadow", "/etc"])
def test_link_in_portage_dir_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "link").symlink_to(target)
    with refused(BinmillError, "portage-dir-link", path=tmp_path / "link"):
        etc_portage.read_portage_dir(tmp_path)


def test_named_pipe_in_portage_dir_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with refused(BinmillError, "portage-dir-special-file", path=tmp_path / "pipe"):
        etc_portage.read_portage_dir(tmp_path)


def test_portage_dir_file_in_another_encoding_is_written_unchanged(tmp_path: Path) -> None:
    """A patch for a file in Latin-1, say."""
    patch = b"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+caf\xe9\x00\n"
    (tmp_path / "portage/patches/a/b").mkdir(parents=True)
    (tmp_path / "portage/patches/a/b/x.patch").write_bytes(patch)
    generated = etc_portage.merge(
        {"make.conf": "x"}, etc_portage.read_portage_dir(tmp_path / "portage")
    )
    etc_portage.write(generated, "/var/db/x", tmp_path / "etc/id", tmp_path / "trash")
    assert (tmp_path / "etc/id/patches/a/b/x.patch").read_bytes() == patch
    etc_portage.check_unmodified(tmp_path / "etc/id", generated, generated)
    identity([generated])


@pytest.mark.parametrize("what", ["added", "added below", "gone", "changed", "profile"])
def test_modified_directory_is_reported_and_kept(tmp_path: Path, what: str) -> None:
    generated, folder = {"a/b": "1", "c": "2", "make.conf": "3"}, tmp_path / "etc"
    etc_portage.write(generated, "/var/db/x", folder, tmp_path / "trash")
    etc_portage.check_unmodified(folder, generated, generated)
    (folder / "make.conf").write_text("other mirrors")
    (folder / "mirrors").write_text("other mirrors")
    etc_portage.check_unmodified(folder, generated, generated)
    if what.startswith("added"):
        (folder / ("a/new" if "below" in what else "new")).write_text("x")
    elif what == "changed":
        (folder / "c").write_text("x")
        etc_portage.check_unmodified(folder, generated)
    else:
        (folder / ("c" if what == "gone" else "make.profile")).unlink()
    before = names(folder)
    with refused(BinmillError, "etc-modified", folder=folder):
        etc_portage.check_unmodified(folder, generated, generated)
    assert names(folder) == before


def test_write_is_one_step_and_once(tmp_path: Path) -> None:
    target, trash = tmp_path / "etc" / "id", tmp_path / "trash"
    (tmp_path / "etc" / ".id.tmp" / "left").mkdir(parents=True)
    etc_portage.write({"a/b": "1", "c": "2"}, "/var/db/x", target, trash)
    assert names(target) == ["a", "c", "make.profile"]
    assert str((target / "make.profile").readlink()) == "/var/db/x"
    assert {p.stat().st_mode & 0o7777 for p in (target, target / "a")} == {0o755}
    etc_portage.write({"c": "3"}, "/var/db/y", target, trash)
    assert (target / "c").read_text() == "2"
    assert names(tmp_path / "etc") == ["id"]


def test_other_mirrors_change_no_record(layout: Layout) -> None:
    """Mirrors do not affect what is built: the record is the same, make.conf is updated."""

    def etc(*changes: tuple[str, Any]) -> EtcRecord:
        chroot = Site(layout, config(*changes)).chroot("java")
        return generate(chroot, reading(layout, ()))

    old = ("mirrors.local", ["http://local.example"])
    before = etc(old)
    folder = layout.state / before.path
    assert "local http://local.example" in (folder / "mirrors").read_text()
    new = ("mirrors.gentoo", ["http://new.example"])
    assert etc(new) == before
    assert not (folder / "mirrors").exists()
    assert 'GENTOO_MIRRORS="http://new.example"' in (folder / "make.conf").read_text()
    assert etc(new, ("chroots.java.use", ["x"])) != before
    assert etc(old) == before
    assert "local http://local.example" in (folder / "mirrors").read_text()
    assert 'GENTOO_MIRRORS="https://mirror.example/gentoo"' in (folder / "make.conf").read_text()
