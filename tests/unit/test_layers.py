"""The files of a chroot's own layer."""

from __future__ import annotations

from tasks.chroot.layers import contents


def test_contents_depend_on_name_and_lineage() -> None:
    files = contents("java", ["base", "java"])
    assert sorted(files) == ["etc/binmill-chroot", "etc/hosts", "etc/resolv.conf"]
    assert files["etc/binmill-chroot"] == "base > java\n"
    assert "127.0.0.1 localhost java\n" in files["etc/hosts"]
    assert contents("base", ["base"]) != files
    assert contents("java", ["base", "java"]) == files
