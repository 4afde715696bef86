"""Settings that would spoil a build are refused before it, by the chroot's own Portage."""

from __future__ import annotations

import pytest

from tests.kit.lab_site import LabSite


@pytest.fixture(scope="module")
def seed_site(lab_site: LabSite) -> LabSite:
    lab_site.doit("chroot:base")
    return lab_site


@pytest.mark.parametrize(
    ("settings", "codes"),
    [
        ({"features": ["-buildpkg"]}, ["'-buildpkg': without this feature"]),
        ({"features": ["-binpkg-multi-instance"]}, ["'-binpkg-multi-instance': without"]),
        ({"features": ["getbinpkg"]}, ["'getbinpkg': takes binary packages from elsewhere"]),
        (
            {"env": {"PORTAGE_BINHOST": "http://me:sesame@127.0.0.1:9/elsewhere"}},
            ["'PORTAGE_BINHOST': takes"],
        ),
        (
            {"env": {"EMERGE_DEFAULT_OPTS": "-aG --buildpkg-exclude=app-misc/hello"}},
            [
                "'EMERGE_DEFAULT_OPTS=--getbinpkgonly': takes",
                "'EMERGE_DEFAULT_OPTS=--ask': with this option",
                "'EMERGE_DEFAULT_OPTS=--buildpkg-exclude': with this option",
            ],
        ),
        (
            {"env": {"EMERGE_DEFAULT_OPTS": "--buildpkg=n --root=/mnt"}},
            ["'EMERGE_DEFAULT_OPTS=--root': with", "'EMERGE_DEFAULT_OPTS=--buildpkg=n': with"],
        ),
        (
            {"env": {"EMERGE_DEFAULT_OPTS": "--jbos=2"}},
            ["'EMERGE_DEFAULT_OPTS=--jbos=2': emerge of this chroot does not take"],
        ),
        ({"env": {"BINPKG_COMPRESS": "lzip"}}, ["'BINPKG_COMPRESS=lzip': lzip is not in"]),
        ({"env": {"BINPKG_COMPRESS": "zstdd"}}, ["'BINPKG_COMPRESS=zstdd': not a compressor"]),
    ],
)
def test_setting_that_spoils_a_build_is_refused(
    seed_site: LabSite, settings: dict[str, object], codes: list[str]
) -> None:
    config = seed_site.layout.config.read_text()
    try:
        seed_site.change(**{"chroots.base": settings})
        seed_site.doit("check:base", code=1)
    finally:
        seed_site.layout.config.write_text(config)
    error = seed_site.error("check:base")
    assert error.code == "settings-rejected"
    problems = error.fields["problems"]
    assert isinstance(problems, list)
    assert len(problems) == len(codes)
    for problem, expected in zip(problems, codes, strict=True):
        assert f": {expected}" in problem


def test_settings_that_work_are_accepted(seed_site: LabSite) -> None:
    config = seed_site.layout.config.read_text()
    settings: dict[str, object] = {
        "env": {"EMERGE_DEFAULT_OPTS": "--jobs=2 --keep-going", "BINPKG_COMPRESS": "xz"},
        "package_use": {"*/*": ["CPU_FLAGS_X86:", "-*", "sse2"]},
    }
    try:
        seed_site.change(**{"chroots.base": settings})
        seed_site.doit("check:base")
        assert "*/* CPU_FLAGS_X86: -* sse2" in seed_site.doit("show", "base")
    finally:
        seed_site.layout.config.write_text(config)
