"""config.toml: every problem is reported at once, with its table and key."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tasks.config.load import InvalidConfig, read_config
from tasks.config.problem import Problem
from tasks.config.tables import Config
from tasks.errors import ConfigError
from tasks.layout import Layout
from tests.kit.configs import THREE_CHROOTS, three_chroots_with
from tests.kit.refused import refused


def read(layout: Layout, raw: dict[str, Any]) -> Config:
    layout.config.write_text(tomli_w.dumps(raw), encoding="utf-8")
    return read_config(layout)


def problems(layout: Layout, *changes: tuple[str, Any]) -> list[Problem]:
    """Every problem of a config with these changes; there is at least one."""
    with refused(InvalidConfig, "config-invalid", path=layout.config) as excinfo:
        read(layout, three_chroots_with(*changes))
    return excinfo.value.problems


def place(problem: Problem) -> tuple[str, str, str]:
    return problem.table, problem.key, problem.code


def test_good_config_is_loaded_with_defaults(layout: Layout) -> None:
    config = read(layout, THREE_CHROOTS)
    assert config.tree.name == "gentoo"
    assert config.overlays["ours"].branch == "main"
    assert config.binhost.listen == "127.0.0.1:8480"
    assert config.keys["release"].accept_expired_before is None
    assert (config.network.proxy, config.network.no_proxy) == (None, [])
    assert (config.tree.warn_hours, config.tree.fail_hours) == (36, 72)
    assert config.tree.manifests == "when-signed"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("keys.release.accept_expired_before", date(2026, 1, 15)),
        ("network.proxy", "http://me:secret@proxy.example:3128"),
        ("network.no_proxy", ["localhost", "10.0.0.0/8", ".example"]),
        ("tree.warn_hours", 0),
        ("tree.fail_hours", 0),
        ("tree.manifests", "always"),
        ("tree.manifests", "never"),
    ],
)
def test_value_is_accepted(layout: Layout, place: str, value: Any) -> None:
    assert _value(read(layout, three_chroots_with((place, value))), place) == value


@pytest.mark.parametrize(
    ("change", "table", "key", "code"),
    [
        (("mirors", {}), "", "mirors", "unknown-key"),
        (("tree.remot", "x"), "tree", "remot", "unknown-key"),
        (("mirrors.gento", []), "mirrors", "gento", "unknown-key"),
        (("chroots.base.pakages", []), "chroots.base", "pakages", "unknown-key"),
        (("keys.release.fingerprint", []), "keys.release", "fingerprint", "unknown-key"),
        (("overlays.ours.zzzz", 1), "overlays.ours", "zzzz", "unknown-key"),
        (("network.proxi", "x"), "network", "proxi", "unknown-key"),
        (("tree.fail_hour", 7), "tree", "fail_hour", "unknown-key"),
        (("access.group", []), "access", "group", "unknown-key"),
        (("tree.key", 3), "tree", "key", "wrong-value"),
        (("binhost.keep", "5"), "binhost", "keep", "wrong-value"),
        (("binhost.keep", True), "binhost", "keep", "wrong-value"),
        (("binhost.keep", 0), "binhost", "keep", "wrong-value"),
        (("build.jobs", -1), "build", "jobs", "wrong-value"),
        (("tree", "gentoo"), "", "tree", "wrong-value"),
        (("mirrors.gentoo", "https://x/"), "mirrors", "gentoo", "wrong-value"),
        (("mirrors.gentoo", []), "mirrors", "gentoo", "wrong-value"),
        (("keys.release.fingerprints", []), "keys.release", "fingerprints", "wrong-value"),
        (
            ("keys.release.accept_expired_before", "2026-01-15"),
            "keys.release",
            "accept_expired_before",
            "wrong-value",
        ),
        (
            ("keys.release.accept_expired_before", datetime(2026, 1, 15)),
            "keys.release",
            "accept_expired_before",
            "wrong-value",
        ),
        (("network.no_proxy", "x"), "network", "no_proxy", "wrong-value"),
        (("tree.warn_hours", -1), "tree", "warn_hours", "wrong-value"),
        (("tree.fail_hours", 7.5), "tree", "fail_hours", "wrong-value"),
        (("tree.manifests", "sometimes"), "tree", "manifests", "wrong-value"),
        (("tree.manifests", True), "tree", "manifests", "wrong-value"),
        (("mirror.keep_days", 0), "mirror", "keep_days", "wrong-value"),
        (("mirrors.gentoo", ["http://a/", "ftp://b/"]), "mirrors", "gentoo[1]", "wrong-form"),
        (("keys.release.fingerprints", ["AB"]), "keys.release", "fingerprints[0]", "wrong-form"),
        (("chroots.base.use", ["a b"]), "chroots.base", "use[0]", "wrong-form"),
        (("chroots.base.env.path", "x"), "chroots.base.env", "path", "wrong-form"),
        (
            ("chroots.base.env.PKGDIR", "/x"),
            "chroots.base.env",
            "PKGDIR",
            "variable-set-by-binmill",
        ),
        (("chroots.base.env.ROOT", "/x"), "chroots.base.env", "ROOT", "variable-of-another-root"),
        (("chroots.a b", {}), "chroots", "a b", "wrong-form"),
        (("network.proxy", "proxy.example:3128"), "network", "proxy", "wrong-form"),
        (("network.proxy", "socks5://x/"), "network", "proxy", "wrong-form"),
        (("network.no_proxy", ["a b"]), "network", "no_proxy[0]", "wrong-form"),
        (
            ("seeds.amd64", {"file": "x.tar.xz", "sha512": "A" * 128}),
            "seeds.amd64",
            "sha512",
            "wrong-form",
        ),
        (("seeds.amd64.build", "20260301"), "seeds.amd64", "build", "wrong-form"),
        (("chroots.java.groups", ["public"]), "chroots.java", "groups[0]", "wrong-form"),
        (("access.groups", ["public"]), "access", "groups[0]", "wrong-form"),
        (("access.groups", ["site:a.b"]), "access", "groups[0]", "wrong-form"),
        (("tree.key", None), "tree", "key", "missing-key"),
        (("tree", None), "", "tree", "missing-key"),
        (("seeds.amd64.flavour", None), "seeds", "amd64", "seed-source"),
        (("seeds.amd64.key", None), "seeds", "amd64", "seed-source"),
        (("seeds.amd64.file", "x.tar.xz"), "seeds", "amd64", "seed-source"),
        (("seeds.amd64.sha512", "a" * 128), "seeds", "amd64", "seed-source"),
        (("seeds.amd64", {"file": "x.tar.xz"}), "seeds", "amd64", "seed-source"),
        (
            ("seeds.amd64", {"file": "x.tar.xz", "sha512": "a" * 128, "key": "release"}),
            "seeds",
            "amd64",
            "seed-source",
        ),
        (("tree.key", "relase"), "tree", "key", "unknown-name"),
        (("seeds.amd64.key", "x"), "seeds.amd64", "key", "unknown-name"),
        (("chroots.base.seed", "amd46"), "chroots.base", "seed", "unknown-name"),
        (("chroots.java.base", "bsae"), "chroots.java", "base", "unknown-name"),
        (("chroots.java.overlays", ["our"]), "chroots.java", "overlays", "unknown-name"),
        (("chroots.java.seed", "amd64"), "chroots.java", "", "seed-or-base"),
        (("chroots.java.base", None), "chroots.java", "", "seed-or-base"),
        (("chroots.base.profile", None), "chroots.base", "profile", "profile-missing"),
        (
            ("overlays.gentoo", {"url": "https://x/"}),
            "overlays.gentoo",
            "",
            "overlay-named-as-tree",
        ),
        (("binhost.channels", ["stable", "stable"]), "binhost", "channels", "channel-twice"),
    ],
    ids=str,
)
def test_one_problem_is_reported_with_its_place(
    layout: Layout, change: tuple[str, Any], table: str, key: str, code: str
) -> None:
    assert [place(each) for each in problems(layout, change)] == [(table, key, code)]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("mirors", {}), "mirors: unknown key; did you mean 'mirrors'?"),
        (("tree.remot", "x"), "[tree] remot: unknown key; did you mean 'remote'?"),
        (("overlays.ours.zzzz", 1), "[overlays.ours] zzzz: unknown key; known: branch, url"),
        (("overlays.gentoo", {"url": "/x"}), "[overlays.gentoo]: has the same name as the tree"),
        (("seeds.amd64.key", "x"), "[seeds.amd64] key: there is no key 'x'; known: release"),
        (("chroots.a b", {}), "[chroots] a b: 'a b' is not a name (letters, digits, - and _)"),
        (("tree.key", 3), "[tree] key: input should be a valid string (got 3)"),
        (("x\x1b[31m", 1), r"'x\x1b[31m': unknown key"),
    ],
)
def test_problem_is_one_line(layout: Layout, change: tuple[str, Any], line: str) -> None:
    (problem,) = problems(layout, change)
    assert str(problem).startswith(line)


def test_all_problems_of_keys_and_types_are_reported_at_once(layout: Layout) -> None:
    changes: tuple[tuple[str, Any], ...] = (
        ("mirors", {}),
        ("tree.key", 3),
        ("seeds.amd64.flavour", None),
        ("binhost.listen", "x"),
    )
    assert sorted(place(each) for each in problems(layout, *changes)) == [
        ("", "mirors", "unknown-key"),
        ("binhost", "listen", "wrong-form"),
        ("seeds", "amd64", "seed-source"),
        ("tree", "key", "wrong-value"),
    ]


def test_all_unknown_names_are_reported_at_once(layout: Layout) -> None:
    both = problems(layout, ("tree.key", "x"), ("chroots.base.seed", "y"))
    assert [each.fields["word"] for each in both] == ["x", "y"]


@pytest.mark.parametrize(
    ("bases", "circle"),
    [
        ({"a": "a"}, "a -> a"),
        ({"b": "a", "a": "b"}, "a -> b -> a"),
        ({"c": "b", "b": "a", "a": "b"}, "a -> b -> a"),
        ({"x": "z", "y": "x", "z": "y"}, "x -> z -> y -> x"),
    ],
)
def test_circle_of_bases_is_reported_once(
    layout: Layout, bases: dict[str, str], circle: str
) -> None:
    (problem,) = problems(layout, *((f"chroots.{name}.base", base) for name, base in bases.items()))
    assert place(problem) == (f"chroots.{circle[0]}", "base", "bases-circular")
    assert problem.fields == {"circle": circle}


def _value(config: Config, place: str) -> Any:
    value: Any = config
    for part in place.removesuffix("[]").split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value[0] if place.endswith("[]") else value


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("tree.name", "../x"),
        ("tree.name", "-x"),
        ("tree.remote", "--upload-pack=x"),
        ("tree.remote", "ext::sh -c x"),
        ("overlays.ours.url", "a-b::x"),
        ("overlays.ours.branch", "-x"),
        ("overlays.ours.branch", "a..b"),
        ("chroots.base.packages", ["--unmerge"]),
        ("chroots.base.packages", ["a b"]),
        ("chroots.base.use", ["$(x)"]),
        ("chroots.base.features", ["x;y"]),
        ("mirrors.gentoo", ["http://x/' y"]),
        ("mirrors.gentoo", ["file:///etc"]),
        ("network.proxy", "file:///etc"),
        ("network.proxy", "http://x/' y"),
        ("network.no_proxy", ["-x"]),
        ("binhost.listen", "0.0.0.0:80; x"),
    ],
)
def test_dangerous_value_is_refused(layout: Layout, place: str, text: Any) -> None:
    assert [each.code for each in problems(layout, (place, text))] == ["wrong-form"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "config-missing"),
        (b"[tree\n", "config-not-toml"),
        (b"a = 1\na = 2\n", "config-not-toml"),
        (b"\xff\xfe", "config-unreadable"),
    ],
)
def test_file_that_is_no_config_is_refused(
    layout: Layout, content: bytes | None, code: str
) -> None:
    if content is not None:
        layout.config.write_bytes(content)
    with refused(ConfigError, code, path=layout.config):
        read_config(layout)


def test_empty_config_lacks_every_required_table(layout: Layout) -> None:
    layout.config.write_bytes(b"")
    with refused(InvalidConfig, "config-invalid") as excinfo:
        read_config(layout)
    assert {each.code for each in excinfo.value.problems} == {"missing-key"}


def test_directory_is_no_config(layout: Layout) -> None:
    layout.config.mkdir()
    with refused(ConfigError, "config-unreadable", path=layout.config):
        read_config(layout)


def test_lineage_runs_from_the_base_up(layout: Layout) -> None:
    config = read(layout, THREE_CHROOTS)
    assert config.lineage("tomcat") == ["base", "java", "tomcat"]
    assert config.lineage("base") == ["base"]
    assert config.seed_of("tomcat") == "amd64"


def test_stack_inherits_and_adds(layout: Layout) -> None:
    java = read(layout, THREE_CHROOTS).effective("java")
    assert java.profile == "default/linux/amd64/23.0"
    assert java.packages == ["dev-java/two"]
    assert java.use == ["ssl", "-gtk", "-ssl"]
    assert java.package_use == {"dev-lang/python": ["sqlite", "-sqlite"], "x/y": ["z"]}
    assert java.env == {"CFLAGS": "-O2 -pipe", "TONE": "java"}
    assert java.features == ["-news"]
    assert (java.seed, java.base) == (None, "base")


def test_last_setting_of_a_flag_wins(layout: Layout) -> None:
    """base has ssl, java -ssl, tomcat ssl: for Portage the last one counts."""
    tomcat = read(layout, THREE_CHROOTS).effective("tomcat")
    assert [flag for flag in tomcat.use if flag.endswith("ssl")][-1] == "ssl"
    assert tomcat.overlays == ["ours"]


def test_inheritance_does_not_change_the_base(layout: Layout) -> None:
    config = read(layout, THREE_CHROOTS)
    before = config.model_dump()
    config.effective("tomcat").use.append("x")
    assert config.model_dump() == before


def test_portage_dir_is_not_inherited(layout: Layout) -> None:
    config = read(layout, three_chroots_with(("chroots.base.portage_dir", "etc")))
    assert config.effective("base").portage_dir == "etc"
    assert config.effective("java").portage_dir is None


def test_site_may_have_an_odd_name(tmp_path: Path) -> None:
    site = tmp_path / "caf\u00e9 \u4e2d; $(x)"
    site.mkdir()
    assert read(Layout(site=site, state=site / "state"), THREE_CHROOTS).tree.key == "release"


GROUPS = ("access.groups", ["site:acme", "role:java"])
TLS = ("serve", {"certificate": "cert.pem", "certificate_key": "key.pem"})


def test_access_is_loaded(layout: Layout) -> None:
    config = read(
        layout,
        three_chroots_with(
            GROUPS,
            TLS,
            ("access.restricted", "role:java"),
            ("access.free", ["MIT"]),
            ("access.binhosts", {"java": "role:java"}),
            ("access.packages", {"a-b/c": "public"}),
            ("mirror.keep_days", 3),
        ),
    )
    assert config.access.restricted == "role:java"
    assert config.access.binhosts == {"java": "role:java"}
    assert config.mirror.keep_days == 3
    assert config.serve.worker == "nobody"


@pytest.mark.parametrize(
    ("changes", "table", "key", "code"),
    [
        ((GROUPS,), "access", "groups", "groups-without-tls"),
        ((("serve.certificate", "x"),), "serve", "", "certificate-incomplete"),
        (
            (GROUPS, TLS, ("access.restricted", "role:jave")),
            "access",
            "restricted",
            "group-unlisted",
        ),
        (
            (GROUPS, TLS, ("access.binhosts", {"jave": "public"})),
            "access.binhosts",
            "jave",
            "binhost-without-chroot",
        ),
        (
            (GROUPS, TLS, ("access.packages", {"a-b/c": "site:x"})),
            "access.packages",
            "a-b/c",
            "group-unlisted",
        ),
        (
            (GROUPS, TLS, ("chroots.java.groups", ["role:jave"])),
            "chroots.java",
            "groups",
            "unknown-name",
        ),
    ],
)
def test_access_that_leads_nowhere_is_refused(
    layout: Layout, changes: tuple[tuple[str, Any], ...], table: str, key: str, code: str
) -> None:
    assert [place(each) for each in problems(layout, *changes)] == [(table, key, code)]
