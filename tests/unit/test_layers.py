"""The files of a chroot's own layer."""

from __future__ import annotations

from tasks.chroot.layers import contents


def test_contents_depend_on_name_and_lineage() -> None:
    made = contents("java", ["base", "java"])
    assert sorted(made) == ["etc/binmill-chroot", "etc/hosts", "etc/resolv.conf"]
    assert made["etc/binmill-chroot"] == "base > java\n"
    assert "127.0.0.1 localhost java\n" in made["etc/hosts"]
    assert contents("base", ["base"]) != made
    assert contents("java", ["base", "java"]) == made
