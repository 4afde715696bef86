"""Packages with one kind of input each, which tests/e2e/test_inputs.py changes."""

from __future__ import annotations

import hashlib

from tests.kit.case_overlay import CATEGORY

DISTFILE = "word-1.txt"
_INSTALL = "src_install() {{ insinto /usr/share/${{PN}}; newins - answer < <({answer}); }}"


def library(number: int, sub_slot: int) -> str:
    """A library by the number in its header and its sub-slot."""
    return f"""
SLOT="0/{sub_slot}"
src_install() {{ insinto /usr/share/library; newins - answer <<< {number}; }}"""


def _answers(answer: str, variables: str = "") -> str:
    """An ebuild that installs what a command prints."""
    return f"{variables}\n{_INSTALL.format(answer=f'{answer} || die')}"


def _reads(package: str) -> str:
    return _answers(f"cat /usr/share/{package}/answer", f'DEPEND="{CATEGORY}/{package}"')


def ebuilds(mirror: str) -> dict[str, str]:
    """The packages by PF; `mirror` is the URL of a folder that has the distfile."""
    word = _answers('echo "${WORD}"')
    return {
        "comment-1": word,
        "inherits-1": f"inherit inputs{word}",
        "depends-1": _reads("inherits"),
        "files-1": _answers('cat "${FILESDIR}"/word'),
        "patched-1": _answers("if [[ -e word ]]; then cat word; fi", "src_prepare() { default; }"),
        "environment-1": word,
        "sourced-1": word,
        "flag-1": _answers("usex word", 'IUSE="word"'),
        "fetches-1": _answers(
            'cat "${DISTDIR}"/${A}', f'SRC_URI="{mirror}/{DISTFILE}"\nRESTRICT="mirror"'
        ),
        "library-1": library(1, sub_slot=1),
        "consumer-1": _reads("library:=").replace("library:=/", "library/"),
        "revised-1": _answers("echo same"),
        "careless-1": _reads("revised"),
        "curious-1": _answers(f"best_version {CATEGORY}/revised", f'DEPEND="{CATEGORY}/revised"'),
    }


def manifest(text: str) -> str:
    """The Manifest of the package whose distfile has this text."""
    data = text.encode()
    digests = (
        f"BLAKE2B {hashlib.blake2b(data).hexdigest()} SHA512 {hashlib.sha512(data).hexdigest()}"
    )
    return f"DIST {DISTFILE} {len(data)} {digests}\n"


OVERLAY = {
    "eclass/inputs.eclass": 'WORD="one"\n',
    f"{CATEGORY}/files/files/word": "one\n",
    f"{CATEGORY}/fetches/Manifest": manifest("one\n"),
}
PORTAGE_DIR = {
    # not of the set: the profile's @system
    "profile/package.provided": "".join(
        f"{name}-9999\n"
        for name in ("app-arch/bzip2", "app-text/tree", "dev-util/pkgconf", "sys-libs/zlib")
    ),
    "package.env": f"{CATEGORY}/environment word.conf\n",
    "env/word.conf": 'WORD="one"\n',
}
PATCH = """\
--- /dev/null
+++ b/word
@@ -0,0 +1 @@
+two
"""
