"""config.toml: every problem is found, in one go, and named with its file, table and key."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tasks.config.load import Config, load
from tasks.errors import ConfigError
from tasks.layout import Layout
from tests.kit.configs import GOOD, changed


def read(layout: Layout, raw: dict[str, Any]) -> Config:
    layout.config.write_text(tomli_w.dumps(raw), encoding="utf-8")
    return load(layout)


def refusal(layout: Layout, raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as refused:
        read(layout, raw)
    assert str(layout.config) in str(refused.value)
    return str(refused.value)


def test_a_good_file(layout: Layout) -> None:
    config = read(layout, GOOD)
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
def test_what_may_be_set(layout: Layout, place: str, value: Any) -> None:
    assert _value(read(layout, changed((place, value))), place) == value


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("mirors", {}), ["mirors: unknown key", "did you mean 'mirrors'?"]),
        (("tree.remot", "x"), ["[tree] remot: unknown key", "did you mean 'remote'?"]),
        (("mirrors.gento", []), ["[mirrors] gento: unknown key", "'gentoo'"]),
        (("chroots.base.pakages", []), ["[chroots.base] pakages: unknown", "'packages'"]),
        (("keys.release.fingerprint", []), ["[keys.release] fingerprint:", "'fingerprints'"]),
        (("overlays.ours.zzzz", 1), ["[overlays.ours] zzzz: unknown key; known: branch, url"]),
        (("tree.key", 3), ["[tree] key: input should be a valid string (got 3)"]),
        (("binhost.keep", "5"), ["[binhost] keep: input should be a valid integer (got '5')"]),
        (("binhost.keep", True), ["[binhost] keep: input should be a valid integer (got True)"]),
        (("binhost.keep", 0), ["[binhost] keep:", "greater than or equal to 1"]),
        (("build.jobs", -1), ["[build] jobs:", "greater than or equal to 0"]),
        (("tree", "gentoo"), ["tree: input should be a valid dictionary"]),
        (("mirrors.gentoo", "https://x/"), ["[mirrors] gentoo: input should be a valid list"]),
        (("mirrors.gentoo", []), ["[mirrors] gentoo:", "at least 1 item"]),
        (("mirrors.gentoo", ["http://a/", "ftp://b/"]), ["[mirrors] gentoo[1]: 'ftp://b/' is not"]),
        (("keys.release.fingerprints", []), ["[keys.release] fingerprints:", "at least 1"]),
        (("keys.release.fingerprints", ["AB"]), ["[keys.release] fingerprints[0]: 'AB' is not a"]),
        (("chroots.base.use", ["a b"]), ["[chroots.base] use[0]: 'a b' is not a flag"]),
        (("chroots.base.env.path", "x"), ["[chroots.base.env] path: 'path' is not a variable"]),
        (("chroots.a b", {}), ["[chroots] a b: 'a b' is not a name"]),
        (("tree.key", None), ["[tree] key: missing"]),
        (("tree", None), ["tree: missing"]),
        (("seeds.amd64.flavour", None), ["[seeds] amd64: needs either flavour and key, or file"]),
        (("seeds.amd64.key", None), ["[seeds] amd64: needs either flavour and key, or file"]),
        (("seeds.amd64.file", "x.tar.xz"), ["[seeds] amd64: needs either flavour and key, or"]),
        (("seeds.amd64.sha512", "a" * 128), ["[seeds] amd64: needs either flavour and key, or"]),
        (("seeds.amd64", {"file": "x.tar.xz"}), ["[seeds] amd64: needs either flavour and key"]),
        (
            ("seeds.amd64", {"file": "x.tar.xz", "sha512": "a" * 128, "key": "release"}),
            ["[seeds] amd64: needs either flavour and key, or file and sha512"],
        ),
        (("seeds.amd64", {"file": "x.tar.xz", "sha512": "A" * 128}), ["is not a SHA-512 in hex"]),
        (("seeds.amd64.build", "20260301"), ["is not a build's time (YYYYMMDDTHHMMSSZ)"]),
        (("tree.key", "relase"), ["[tree] key: no key 'relase'", "did you mean 'release'?"]),
        (("seeds.amd64.key", "x"), ["[seeds.amd64] key: no key 'x'; known: release"]),
        (("chroots.base.seed", "amd46"), ["[chroots.base] seed: no seed 'amd46'", "'amd64'"]),
        (("chroots.java.base", "bsae"), ["[chroots.java] base: no chroot 'bsae'", "'base'"]),
        (("chroots.java.overlays", ["our"]), ["[chroots.java] overlays: no overlay 'our'"]),
        (("chroots.java.seed", "amd64"), ["[chroots.java]: needs either seed", "not both"]),
        (("chroots.java.base", None), ["[chroots.java]: needs either seed"]),
        (("chroots.base.profile", None), ["[chroots.base] profile: missing"]),
        (("overlays.gentoo", {"url": "https://x/"}), ["[overlays.gentoo]: has the name of the"]),
        (
            ("keys.release.accept_expired_before", "2026-01-15"),
            [
                "[keys.release] accept_expired_before: input should be a valid date",
                "(got '2026-01-15')",
            ],
        ),
        (
            ("keys.release.accept_expired_before", datetime(2026, 1, 15)),
            ["[keys.release] accept_expired_before: input should be a valid date"],
        ),
        (
            ("keys.release.accept_expired_befor", date(2026, 1, 15)),
            ["[keys.release] accept_expired_befor:", "did you mean 'accept_expired_before'?"],
        ),
        (("network.proxi", "x"), ["[network] proxi: unknown key", "did you mean 'proxy'?"]),
        (("network.proxy", "proxy.example:3128"), ["[network] proxy: 'proxy.example:3128' is not"]),
        (("network.proxy", "socks5://x/"), ["[network] proxy: 'socks5://x/' is not an http or"]),
        (("network.no_proxy", "x"), ["[network] no_proxy: input should be a valid list"]),
        (("network.no_proxy", ["a b"]), ["[network] no_proxy[0]: 'a b' is not one word"]),
        (("tree.warn_hours", -1), ["[tree] warn_hours:", "greater than or equal to 0"]),
        (("tree.fail_hours", 7.5), ["[tree] fail_hours: input should be a valid integer"]),
        (("tree.fail_hour", 7), ["[tree] fail_hour: unknown key", "'fail_hours'"]),
        (
            ("tree.manifests", "sometimes"),
            ["[tree] manifests: input should be 'when-signed', 'always' or 'never'"],
        ),
        (("tree.manifests", True), ["[tree] manifests: input should be 'when-signed'"]),
    ],
    ids=str,
)
def test_one_problem(layout: Layout, change: tuple[str, Any], told: list[str]) -> None:
    message = refusal(layout, changed(change))
    assert "1 problem, nothing was done" in message
    for words in told:
        assert words in message


def test_all_problems_in_one_go(layout: Layout) -> None:
    message = refusal(
        layout,
        changed(
            ("mirors", {}), ("tree.key", 3), ("seeds.amd64.flavour", None), ("binhost.listen", "x")
        ),
    )
    assert "4 problems, nothing was done" in message
    for place in ("mirors:", "[tree] key:", "[seeds] amd64:", "[binhost] listen:"):
        assert f"\n  {place}" in message


def test_all_broken_references_in_one_go(layout: Layout) -> None:
    message = refusal(layout, changed(("tree.key", "x"), ("chroots.base.seed", "y")))
    assert "2 problems" in message


@pytest.mark.parametrize(
    ("bases", "circle"),
    [
        ({"a": "a"}, "[chroots.a] base: runs in a circle: a -> a"),
        ({"b": "a", "a": "b"}, "[chroots.a] base: runs in a circle: a -> b -> a"),
        ({"c": "b", "b": "a", "a": "b"}, "[chroots.a] base: runs in a circle: a -> b -> a"),
        ({"x": "z", "y": "x", "z": "y"}, "[chroots.x] base: runs in a circle: x -> z -> y -> x"),
    ],
)
def test_a_ring_of_bases_is_told_once(layout: Layout, bases: dict[str, str], circle: str) -> None:
    ring = [(f"chroots.{name}.base", base) for name, base in bases.items()]
    message = refusal(layout, changed(*ring))
    assert "1 problem," in message
    assert circle in message


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
def test_what_must_never_pass(layout: Layout, place: str, text: Any) -> None:
    refusal(layout, changed((place, text)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"[tree\n", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "problems"),
    ],
)
def test_not_a_config(layout: Layout, content: bytes | None, told: str) -> None:
    if content is not None:
        layout.config.write_bytes(content)
    with pytest.raises(ConfigError, match=told) as refused:
        load(layout)
    assert str(layout.config) in str(refused.value)


def test_a_directory_is_not_a_config(layout: Layout) -> None:
    layout.config.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load(layout)


def test_lineage_runs_from_the_base_up(layout: Layout) -> None:
    config = read(layout, GOOD)
    assert config.lineage("tomcat") == ["base", "java", "tomcat"]
    assert config.lineage("base") == ["base"]
    assert config.seed_of("tomcat") == "amd64"


def test_a_stack_inherits_and_adds(layout: Layout) -> None:
    java = read(layout, GOOD).effective("java")
    assert java.profile == "default/linux/amd64/23.0"
    assert java.packages == ["dev-java/two"]
    assert java.use == ["ssl", "-gtk", "-ssl"]
    assert java.package_use == {"dev-lang/python": ["sqlite", "-sqlite"], "x/y": ["z"]}
    assert java.env == {"CFLAGS": "-O2 -pipe", "TONE": "java"}
    assert java.features == ["-news"]
    assert (java.seed, java.base) == (None, "base")


def test_the_last_word_on_a_flag_holds(layout: Layout) -> None:
    """base says ssl, java says -ssl, tomcat says ssl: Portage lets the last one win."""
    tomcat = read(layout, GOOD).effective("tomcat")
    assert [flag for flag in tomcat.use if flag.endswith("ssl")][-1] == "ssl"
    assert tomcat.overlays == ["ours"]


def test_inheriting_changes_no_base(layout: Layout) -> None:
    config = read(layout, GOOD)
    before = config.model_dump()
    config.effective("tomcat").use.append("x")
    assert config.model_dump() == before


def test_portage_dir_is_not_inherited(layout: Layout) -> None:
    config = read(layout, changed(("chroots.base.portage_dir", "etc")))
    assert config.effective("base").portage_dir == "etc"
    assert config.effective("java").portage_dir is None


def test_a_site_with_an_odd_name(tmp_path: Path) -> None:
    site = tmp_path / "caf\u00e9 \u4e2d; $(x)"
    site.mkdir()
    assert read(Layout(site=site, state=site / "state"), GOOD).tree.key == "release"


GROUPS = ("access.groups", ["site:acme", "role:java"])
TLS = ("serve", {"certificate": "cert.pem", "certificate_key": "key.pem"})


def test_who_gets_what(layout: Layout) -> None:
    found = read(
        layout,
        changed(
            GROUPS,
            TLS,
            ("access.restricted", "role:java"),
            ("access.free", ["MIT"]),
            ("access.binhosts", {"java": "role:java"}),
            ("access.packages", {"a-b/c": "public"}),
            ("mirror.keep_days", 3),
        ),
    )
    assert found.access.restricted == "role:java"
    assert found.access.binhosts == {"java": "role:java"}
    assert found.mirror.keep_days == 3
    assert found.serve.worker == "nobody"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ((GROUPS,), r"\[access\] groups: need TLS"),
        ((("serve.certificate", "x"),), r"\[serve\]: certificate and certificate_key go together"),
        (
            (GROUPS, TLS, ("access.restricted", "role:jave")),
            r"\[access\] restricted: 'role:jave' is not in .* did you mean 'role:java'",
        ),
        (
            (GROUPS, TLS, ("access.binhosts", {"jave": "public"})),
            r"\[access.binhosts\] jave: no chroot; did you mean 'java'",
        ),
        (
            (GROUPS, TLS, ("access.packages", {"a-b/c": "site:x"})),
            r"\[access.packages\] a-b/c: 'site:x' is not in \[access\] groups",
        ),
        (
            (GROUPS, TLS, ("chroots.java.groups", ["role:jave"])),
            r"\[chroots.java\] groups: no group 'role:jave'; did you mean 'role:java'",
        ),
        ((("chroots.java.groups", ["public"]),), "'public' is not site:NAME or role:NAME"),
        ((("access.groups", ["public"]),), "'public' is not site:NAME or role:NAME"),
        ((("access.groups", ["site:a.b"]),), "'site:a.b' is not site:NAME or role:NAME"),
        ((("access.group", []),), "did you mean 'groups'"),
        ((("mirror.keep_days", 0),), "greater than or equal to 1"),
    ],
)
def test_access_that_leads_nowhere(
    layout: Layout, changes: tuple[tuple[str, Any], ...], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        read(layout, changed(*changes))
