"""Run inside a chroot, by its Python: which words of a config its Portage does not know.

python3 check_config.py REQUEST.json; prints a list of {"key", "word", "said", "fatal"}. Nothing
else of this project is there: only Portage and the standard library.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import portage  # type: ignore[import-not-found,unused-ignore]
from portage.const import SUPPORTED_FEATURES  # type: ignore[import-not-found,unused-ignore]
from portage.dep import Atom, extended_cp_match  # type: ignore[import-not-found,unused-ignore]
from portage.exception import (  # type: ignore[import-not-found,unused-ignore]
    AmbiguousPackageName,
    InvalidAtom,
)

ATOM_KEYS = (
    "package_use",
    "package_accept_keywords",
    "package_license",
    "package_mask",
    "package_unmask",
)
ANY_KEYWORD = ("*", "~*", "**")  # portage(5), package.accept_keywords

Problem = dict[str, Any]


class Asked:
    """One request against the Portage of this chroot; `problems` yields what it does not know."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.settings, self.db = portage.settings, portage.portdb
        self.repos = list(self.db.getRepositories())
        self.places = [Path(self.db.getRepositoryPath(name)) for name in self.repos]

    def problems(self) -> Iterator[Problem]:
        """Every problem, in the order of the config's keys."""
        yield from self._profile()
        yield from self._each("features", set(SUPPORTED_FEATURES), "no feature of Portage")
        yield from self._packages()
        yield from self._each("use", self._flags, "a flag that no package has")
        arches = set(self._lines("profiles/arch.list"))
        yield from self._keywords("accept_keywords", self.request["accept_keywords"], arches)
        licences = self._licences()
        yield from self._licence_words("accept_license", self.request["accept_license"], licences)
        for key in ATOM_KEYS:
            for atom in self.request[key]:
                yield from self._atom(key, atom)
        for atom, words in self.request["package_accept_keywords"].items():
            yield from self._keywords("package_accept_keywords", words, arches, atom)
        for atom, words in self.request["package_license"].items():
            yield from self._licence_words("package_license", words, licences, atom)
        for atom, words in self.request["package_use"].items():
            yield from self._package_flags(atom, words)

    def _profile(self) -> Iterator[Problem]:
        for place in self.settings.profiles[-1:]:
            for instead in read(Path(place, "deprecated")):
                said = f"deprecated; the tree says to use {instead}"
                yield problem("profile", self.request["profile"], said, fatal=False)
                break

    def _each(self, key: str, known: Any, what: str) -> Iterator[Problem]:
        words = [word.lstrip("-") for word in self.request[key]]
        if words:
            known = known() if callable(known) else known
            for word in words:
                if word != "*" and word not in known:
                    yield problem(key, word, what + near(word, known))

    def _flags(self) -> set[str]:
        """Every USE flag that a description or a package has; packages are read if need be."""
        wanted = {word.lstrip("-") for word in self.request["use"]}
        known = {line.split(" - ")[0] for line in self._lines("profiles/use.desc")}
        known |= {
            line.split(" - ")[0].partition(":")[2]
            for line in self._lines("profiles/use.local.desc")
        }
        known |= self._implicit()
        for place in self.places:
            for file in place.glob("profiles/desc/*.desc"):
                known |= {f"{file.stem}_{line.split(' - ')[0]}" for line in read(file)}
        if not wanted <= known:
            for package in self.db.cp_all():
                known |= self._iuse(self.db.cp_list(package))
        return known

    def _packages(self) -> Iterator[Problem]:
        sets: Any = None
        for word in self.request["packages"]:
            if word.startswith("@"):
                if sets is None:
                    from portage._sets import (  # type: ignore[import-not-found,unused-ignore]
                        load_default_config,
                    )

                    trees = portage.db[portage.root]
                    sets = set(load_default_config(self.settings, trees).getSets())
                if word[1:] not in sets:
                    yield problem("packages", word, "no set of this chroot" + near(word[1:], sets))
                continue
            yield from self._atom("packages", word)

    def _atom(self, key: str, word: str) -> Iterator[Problem]:
        try:
            if key == "packages" and "/" not in word:
                atom = portage.dbapi.dep_expand.dep_expand(
                    word, mydb=self.db, settings=self.settings
                )
            else:
                atom = Atom(word.removeprefix("-"), allow_wildcard=True, allow_repo=True)
        except AmbiguousPackageName as error:
            yield problem(key, word, f"could be {' or '.join(sorted(error.args[0]))}")
            return
        except InvalidAtom:
            yield problem(key, word, "not an atom: CATEGORY/PACKAGE, or =CATEGORY/PACKAGE-VERSION")
            return
        if atom.cp.startswith("null/"):
            yield problem(key, word, "no package of that name" + self._near_package(atom.cp))
        elif atom.extended_syntax:
            if not self._matched(atom):
                yield problem(key, word, "fits no package")
        elif not self.db.cp_list(atom.cp):
            yield problem(key, word, "no such package" + self._near_package(atom.cp))
        elif not self._matched(atom):
            have = ", ".join(c[len(atom.cp) + 1 :] for c in self.db.cp_list(atom.cp)[-4:])
            # a mask may stand there for a version that is still to come
            yield problem(
                key, word, f"no version fits; the newest are {have}", fatal=key == "packages"
            )

    def _matched(self, atom: Any) -> Sequence[Any]:
        if atom.extended_syntax:
            packages = (c for c in self.db.cp_all() if extended_cp_match(atom.cp, c))
            return [each for c in packages for each in self.db.cp_list(c)]
        found: Sequence[Any] = self.db.xmatch("match-all", atom.without_use)
        return found

    def _package_flags(self, word: str, flags: list[str]) -> Iterator[Problem]:
        try:
            atom = Atom(word, allow_wildcard=True, allow_repo=True)
        except InvalidAtom:
            return
        found = () if atom.extended_syntax else self._matched(atom)
        if not found:
            return
        known = self._iuse(found) | self._implicit()
        prefix = ""
        for flag in flags:
            if flag.endswith(":"):  # portage(5), package.use: "VIDEO_CARDS: intel"
                prefix = f"{flag[:-1].lower()}_"
                continue
            name = prefix + flag.lstrip("-")
            if not name.endswith("*") and name not in known:
                yield problem(
                    "package_use",
                    f"{word} {flag}",
                    f"{atom.cp} has no such flag{near(name, known)}",
                )

    def _iuse(self, packages: Sequence[Any]) -> set[str]:
        return {
            flag.lstrip("+-")
            for each in packages
            for flag in self.db.aux_get(each, ["IUSE"])[0].split()
        }

    def _implicit(self) -> set[str]:
        return set(getattr(self.settings, "_iuse_effective", ()))

    def _keywords(
        self, key: str, words: list[str], arches: set[str], atom: str = ""
    ) -> Iterator[Problem]:
        for word in words:
            plain = word.removeprefix("-")
            if plain not in ANY_KEYWORD and plain.removeprefix("~") not in arches:
                yield problem(
                    key,
                    f"{atom} {word}".strip(),
                    "no architecture of the tree" + near(plain, arches),
                )

    def _licences(self) -> set[str]:
        found = {f"@{line.split()[0]}" for line in self._lines("profiles/license_groups")}
        own = Path("/etc/portage/license_groups")
        found |= {f"@{line.split()[0]}" for line in read(own)}
        return found | {file.name for place in self.places for file in place.glob("licenses/*")}

    def _licence_words(
        self, key: str, words: list[str], known: set[str], atom: str = ""
    ) -> Iterator[Problem]:
        for word in " ".join(words).split():
            plain = word.removeprefix("-")
            if plain != "*" and plain not in known:
                what = "no licence group" if plain.startswith("@") else "no licence"
                said = f"{what} of the tree{near(plain, known)}"
                yield problem(key, f"{atom} {word}".strip(), said)

    def _lines(self, path: str) -> Iterator[str]:
        for place in self.places:
            yield from read(place / path)

    def _near_package(self, package: str) -> str:
        known = self.db.cp_all()
        name = package.partition("/")[2]
        same = [each for each in known if each.partition("/")[2] == name]
        return f"; did you mean {same[0]!r}?" if same else near(package, known)


def read(path: Path) -> Iterator[str]:
    """The lines of a file that say something; none where there is no such file."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            text = line.partition("#")[0].strip()
            if text:
                yield text


def problem(key: str, word: str, said: str, *, fatal: bool = True) -> Problem:
    """One answer."""
    return {"key": key, "word": word, "said": said, "fatal": fatal}


def near(word: str, known: Any) -> str:
    """A suggestion, where one is close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


if __name__ == "__main__":
    json.dump(list(Asked(json.loads(Path(sys.argv[1]).read_text())).problems()), sys.stdout)
