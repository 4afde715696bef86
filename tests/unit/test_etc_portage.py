"""/etc/portage as Portage will read it.

`read_back` is a faithful, short copy of portage.util.getconfig: shlex with Portage's settings,
then varexpand. Portage itself is not on PyPI as something that a test could import cheaply; the
end-to-end test has the real one.
"""

from __future__ import annotations

import configparser
import os
import shlex
import string
from pathlib import Path
from typing import Any

import pytest

from tasks.config.load import Config
from tasks.errors import BinmillError
from tasks.flow.etc import etc
from tasks.layout import Layout
from tasks.portage import etc_portage
from tasks.site import Site, identity
from tests.conftest import names
from tests.unit.test_config import changed

GUIDE = ["buildpkg", "cgroup", "ipc-sandbox", "network-sandbox", "parallel-fetch"]


def config(*changes: tuple[str, Any]) -> Config:
    return Config.model_validate(changed(*changes))


def read_back(text: str) -> dict[str, str]:
    """portage.util.getconfig(make.conf, allow_sourcing=True)."""
    lex = shlex.shlex(text, posix=True)
    lex.wordchars = string.digits + string.ascii_letters + r"~!@#$%*_\:;?,./-+{}"
    lex.quotes = "\"'"
    lex.source = "source"
    found: dict[str, str] = {}
    while (key := lex.get_token()) is not None:
        assert lex.get_token() == "="
        value = lex.get_token()
        assert value is not None
        found[key] = varexpand(value, found)
    return found


def varexpand(value: str, known: dict[str, str]) -> str:
    """portage.util.varexpand, with its reading of quotes."""
    single = double = False
    place, out = 0, ""
    while place < len(value):
        letter = value[place]
        place += 1
        if letter == "'":
            single = single if double else not single
            out += letter
        elif letter == '"':
            double = double if single else not double
            out += letter
        elif single:
            out += letter
        elif letter == "\n":
            out += " "
        elif letter == "\\" and place < len(value):
            after = value[place]
            place += 1
            if after == "\\":
                out += after
                if value[place : place + 1] in ("'", '"', "$"):
                    out += value[place]
                    place += 1
            elif after != "\n":
                out += after if after == "$" else letter + after
        elif letter == "$" and place < len(value):
            braced = value[place] == "{"
            start = place = place + braced
            while place < len(value) and (value[place].isalnum() or value[place] == "_"):
                place += 1
            out += known.get(value[start:place], "")
            place += braced
        else:
            out += letter
    return out


def make_conf(*changes: tuple[str, Any], name: str = "base") -> dict[str, str]:
    return read_back(etc_portage.files(config(*changes), name)["make.conf"])


def test_make_conf_of_a_base() -> None:
    found = make_conf(("mirrors.gentoo", ["https://a.example/g", "https://b.example/g"]))
    assert found.pop("FEATURES").split() == [*GUIDE, "-news"]
    assert found == {
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


def test_the_features_are_added_to_the_profile_s() -> None:
    text = etc_portage.files(config(), "base")["make.conf"]
    assert f'FEATURES="${{FEATURES}} {" ".join(GUIDE)} -news"\n' in text
    assert text.count("FEATURES=") == 1
    client = etc_portage.files(config(), "base", features=())["make.conf"]
    assert 'FEATURES="${FEATURES} -news"\n' in client


def test_a_feature_said_twice_is_written_once() -> None:
    found = make_conf(("chroots.base.features", ["test", "cgroup"]))
    assert found["FEATURES"].split() == [*GUIDE, "test"]


def test_a_stack_inherits_and_overrides() -> None:
    java = etc_portage.files(config(), "java")
    assert read_back(java["make.conf"])["USE"] == "ssl -gtk -ssl"
    assert read_back(java["make.conf"])["TONE"] == "java"
    assert java["package.use/binmill"].splitlines()[1:] == [
        "dev-lang/python sqlite -sqlite",
        "x/y z",
    ]
    tomcat = etc_portage.files(config(), "tomcat")
    assert read_back(tomcat["make.conf"])["USE"] == "-gtk -ssl ssl"
    assert tomcat["package.use/binmill"] == java["package.use/binmill"]


def test_what_is_not_said_is_not_written() -> None:
    made = etc_portage.files(config(("chroots.base.package_use", None)), "base")
    assert sorted(made) == ["binrepos.conf", "make.conf", "repos.conf/binmill.conf"]
    text = made["make.conf"]
    assert "ACCEPT_LICENSE" not in text
    assert "ACCEPT_KEYWORDS" not in text


def test_lists_that_env_has_hold_where_the_config_s_own_are_empty() -> None:
    env = {"USE": "-X", "ACCEPT_LICENSE": "*", "PKGDIR": "/elsewhere"}
    changes = (("chroots.base.env", env), ("chroots.base.use", None))
    found = make_conf(*changes)
    assert (found["USE"], found["ACCEPT_LICENSE"]) == ("-X", "*")
    assert found["PKGDIR"] == "/var/cache/binpkgs"
    assert make_conf(("chroots.base.env", env))["USE"] == "ssl -gtk"


def test_every_table_and_list() -> None:
    made = etc_portage.files(
        config(
            ("mirrors.local", ["http://127.0.0.1:1/a", "http://127.0.0.1:1/b"]),
            ("chroots.base.package_accept_keywords", {"b/b": ["~amd64"], "=a/a-1": ["**"]}),
            ("chroots.base.package_license", {"a/a": ["EULA", "x y"]}),
            ("chroots.base.package_mask", [">=a/a-2", "b/b"]),
            ("chroots.base.package_unmask", ["=b/b-1"]),
            ("chroots.base.accept_license", ["-*", "@FREE"]),
            ("chroots.base.accept_keywords", ["~amd64"]),
        ),
        "base",
        binrepos="[x]\nsync-uri = http://127.0.0.1/x\n",
    )
    body = {path: text.split("\n", 1)[1] for path, text in made.items()}
    assert all(text.startswith("# Generated by binmill") for text in made.values())
    assert body["mirrors"] == "local http://127.0.0.1:1/a http://127.0.0.1:1/b\n"
    assert body["package.accept_keywords/binmill"] == "=a/a-1 **\nb/b ~amd64\n"
    assert body["package.license/binmill"] == "a/a EULA x y\n"
    assert body["package.mask/binmill"] == ">=a/a-2\nb/b\n"
    assert body["package.unmask/binmill"] == "=b/b-1\n"
    assert body["binrepos.conf"] == "[x]\nsync-uri = http://127.0.0.1/x\n"
    found = read_back(made["make.conf"])
    assert (found["ACCEPT_LICENSE"], found["ACCEPT_KEYWORDS"]) == ("-* @FREE", "~amd64")


def test_further_variables_of_a_client_win() -> None:
    made = etc_portage.files(config(), "base", variables={"USE_X": "1", "PKGDIR": "/p"})
    found = read_back(made["make.conf"])
    assert (found["USE_X"], found["PKGDIR"]) == ("1", "/p")


def test_a_mirror_of_ones_own_comes_first() -> None:
    own = "https://127.0.0.1:1/mirror/role.java"
    made = etc_portage.files(config(), "base", local=(own,))
    assert made["mirrors"].endswith(f"local {own}\n")
    more = config(("mirrors.local", ["http://127.0.0.1:2"]))
    made = etc_portage.files(more, "base", local=(own,))
    assert made["mirrors"].endswith(f"local {own} http://127.0.0.1:2\n")
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
def test_hostile_values_come_out_as_they_are(value: str) -> None:
    env = {"AAA": value, "HOME": "expanded", "ORIGIN": "expanded", "ZZZ": "end"}
    found = make_conf(("chroots.base.env", env))
    assert found["AAA"] == value
    assert found["ZZZ"] == "end"
    assert found["USE"] == "ssl -gtk"


def test_a_use_flag_called_source() -> None:
    """Every Java package has it; shlex takes it for a command that reads a file."""
    assert make_conf(("chroots.base.use", ["source"]))["USE"] == "source"


def test_all_pairs_of_what_means_something() -> None:
    letters = ["\\", "'", '"', "$", "{", "}", "A", "`", "#", " "]
    words = [a + b + c + d for a in letters for b in letters for c in letters for d in "$'\\"]
    text = etc_portage.make_conf(
        config(), config().chroots["base"], (), {f"V{n}": word for n, word in enumerate(words)}
    )
    found = read_back(text)
    assert [word for n, word in enumerate(words) if found[f"V{n}"] != word] == []


@pytest.mark.parametrize(
    ("profile", "link"),
    [
        ("default/linux/amd64/23.0", "/var/db/repos/gentoo/profiles/default/linux/amd64/23.0"),
        ("ours:lab/x", "/var/db/repos/ours/profiles/lab/x"),
    ],
)
def test_profile_link(profile: str, link: str) -> None:
    assert etc_portage.profile_link(config(("chroots.base.profile", profile)), "base") == link
    assert etc_portage.profile_link(config(("chroots.base.profile", profile)), "tomcat") == link


@pytest.mark.parametrize("profile", ["../x", "a/../../x", "..", "ours:../x", "nowhere:x", "a:b:c"])
def test_no_profile(profile: str) -> None:
    with pytest.raises(BinmillError, match="is not a profile"):
        etc_portage.profile_link(config(("chroots.base.profile", profile)), "base")


def test_own_files_are_merged(tmp_path: Path) -> None:
    own = tmp_path / "portage"
    (own / "package.use").mkdir(parents=True)
    (own / "profile").mkdir()
    (own / "package.use" / "mine").write_text("a/b c\n")
    (own / "profile" / "package.provided").write_text("sys-apps/x-1\n")
    (own / "bashrc").write_text("\u00e9\n", encoding="utf-8")
    found = etc_portage.own_files(own)
    assert sorted(found) == ["bashrc", "package.use/mine", "profile/package.provided"]
    merged = etc_portage.merged({"make.conf": "x", "package.use/binmill": "y"}, found)
    assert merged == {"make.conf": "x", "package.use/binmill": "y", **found}


@pytest.mark.parametrize(
    "path", ["make.conf", "make.conf/01", "package.use", "make.profile", "make.profile/parent"]
)
def test_own_files_that_clash(path: str) -> None:
    generated = {"make.conf": "x", "package.use/binmill": "y"}
    with pytest.raises(BinmillError, match=f"portage_dir has {path}, which binmill generates"):
        etc_portage.merged(generated, {path: "mine", "bashrc": "z"})
    assert etc_portage.merged(generated, {"make.conf.d": "", "package.usex/y": ""})


def test_own_files_that_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "portage"
    with pytest.raises(BinmillError, match="is not a directory"):
        etc_portage.own_files(own)
    own.mkdir()
    (own / "link").symlink_to("/etc/shadow")
    with pytest.raises(BinmillError, match="is a link"):
        etc_portage.own_files(own)
    (own / "link").unlink()
    (own / "folder").symlink_to("/etc")
    with pytest.raises(BinmillError, match="is a link"):
        etc_portage.own_files(own)
    (own / "folder").unlink()
    os.mkfifo(own / "pipe")
    with pytest.raises(BinmillError, match="not a plain file"):
        etc_portage.own_files(own)


def test_own_files_in_another_encoding_come_out_as_they_are(tmp_path: Path) -> None:
    """A patch for a file in Latin-1, say."""
    patch = b"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+caf\xe9\x00\n"
    (tmp_path / "portage/patches/a/b").mkdir(parents=True)
    (tmp_path / "portage/patches/a/b/x.patch").write_bytes(patch)
    made = etc_portage.merged({"make.conf": "x"}, etc_portage.own_files(tmp_path / "portage"))
    etc_portage.write(made, "/var/db/x", tmp_path / "etc/id", tmp_path / "trash")
    assert (tmp_path / "etc/id/patches/a/b/x.patch").read_bytes() == patch
    etc_portage.vouched(tmp_path / "etc/id", made, made)
    identity([made])


@pytest.mark.parametrize("what", ["added", "added below", "gone", "changed", "profile"])
def test_a_generated_directory_that_somebody_has_changed_is_reported(
    tmp_path: Path, what: str
) -> None:
    made, folder = {"a/b": "1", "c": "2", "make.conf": "3"}, tmp_path / "etc"
    etc_portage.write(made, "/var/db/x", folder, tmp_path / "trash")
    etc_portage.vouched(folder, made, made)
    (folder / "make.conf").write_text("other mirrors")
    (folder / "mirrors").write_text("other mirrors")
    etc_portage.vouched(folder, made, made)
    if what.startswith("added"):
        (folder / ("a/new" if "below" in what else "new")).write_text("x")
    elif what == "changed":
        (folder / "c").write_text("x")
        etc_portage.vouched(folder, made)
    else:
        (folder / ("c" if what == "gone" else "make.profile")).unlink()
    kept = names(folder)
    with pytest.raises(BinmillError, match="was put there, taken away or changed by hand"):
        etc_portage.vouched(folder, made, made)
    assert names(folder) == kept


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


def test_other_mirrors_are_no_other_etc(layout: Layout) -> None:
    """Where files come from changes nothing that is built: the same record, the new make.conf."""
    old = ("mirrors.local", ["http://local.example"])
    before = etc(Site(layout, config(old)), "java")
    made = layout.state / before["path"]
    assert "local http://local.example" in (made / "mirrors").read_text()
    new = ("mirrors.gentoo", ["http://new.example"])
    assert etc(Site(layout, config(new)), "java") == before
    assert not (made / "mirrors").exists()
    assert 'GENTOO_MIRRORS="http://new.example"' in (made / "make.conf").read_text()
    assert etc(Site(layout, config(new, ("chroots.java.use", ["x"]))), "java") != before
    assert etc(Site(layout, config(old)), "java") == before
    assert "local http://local.example" in (made / "mirrors").read_text()
    assert 'GENTOO_MIRRORS="https://mirror.example/gentoo"' in (made / "make.conf").read_text()
