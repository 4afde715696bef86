"""Check a config with Portage; the Python of a chroot runs this file.

python3 check_config.py REQUEST.json; prints a list of {"code", "key", "value", "near", "names",
"fatal"}, one for each value that Portage rejects. It imports Portage and the standard library only.
"""

from __future__ import annotations

import difflib
import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import portage  # type: ignore[import-not-found,unused-ignore]
from portage.const import SUPPORTED_FEATURES  # type: ignore[import-not-found,unused-ignore]
from portage.dep import Atom, extended_cp_match  # type: ignore[import-not-found,unused-ignore]
from portage.exception import (  # type: ignore[import-not-found,unused-ignore]
    AmbiguousPackageName,
    InvalidAtom,
)
from portage.util import varexpand  # type: ignore[import-not-found,unused-ignore]
from portage.util.compression_probe import (  # type: ignore[import-not-found,unused-ignore]
    _compressors,
)

ATOM_KEYS = (
    "package_use",
    "package_accept_keywords",
    "package_license",
    "package_mask",
    "package_unmask",
    "test",
)
ANY_KEYWORD = ("*", "~*", "**")  # portage(5), package.accept_keywords

# What Portage itself must do in a build, and what it must not take packages by (make.conf(5)).
REQUIRED_FEATURES = ("binpkg-multi-instance", "buildpkg")
FOREIGN_FEATURES = ("getbinpkg", "getbinpkgonly")
# emerge(1): options that take packages from elsewhere; that build nothing, or ask a person.
FOREIGN_OPTIONS = ("--getbinpkg", "--getbinpkgonly", "--usepkg", "--usepkgonly")
UNWORKABLE_OPTIONS = (
    "--ask",
    "--autounmask-continue",
    "--autounmask-write",
    "--buildpkg-exclude",
    "--buildpkgonly",
    "--config-root",
    "--fetch-all-uri",
    "--fetchonly",
    "--nodeps",
    "--onlydeps",
    "--prefix",
    "--pretend",
    "--root",
    "--sysroot",
)

Problem = dict[str, Any]


class Check:
    """One request, checked with the Portage of this chroot."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.settings, self.db = portage.settings, portage.portdb
        self.repos = list(self.db.getRepositories())
        self.places = [Path(self.db.getRepositoryPath(name)) for name in self.repos]

    def problems(self) -> Iterator[Problem]:
        """Every problem, in the order of the config's keys."""
        yield from self._profile()
        yield from self._features()
        yield from self._options()
        yield from self._binary_packages()
        yield from self._packages()
        yield from self._use()
        arches = set(self._lines("profiles/arch.list"))
        licences = self._licence_names()
        yield from self._keywords("accept_keywords", self.request["accept_keywords"], arches)
        yield from self._licences("accept_license", self.request["accept_license"], licences)
        for key in ATOM_KEYS:
            for atom in self.request[key]:
                yield from self._atom(key, atom)
        for atom, words in self.request["package_accept_keywords"].items():
            yield from self._keywords("package_accept_keywords", words, arches, atom)
        for atom, words in self.request["package_license"].items():
            yield from self._licences("package_license", words, licences, atom)
        for atom, words in self.request["package_use"].items():
            yield from self._package_flags(atom, words)

    def _profile(self) -> Iterator[Problem]:
        for place in self.settings.profiles[-1:]:
            for successor in list(read(Path(place, "deprecated")))[:1]:
                value = self.request["profile"]
                yield problem(
                    "profile-deprecated", key="profile", value=value, names=[successor], fatal=False
                )

    def _features(self) -> Iterator[Problem]:
        words = self.request["features"]
        yield from unknown("feature-unknown", "features", words, SUPPORTED_FEATURES)
        # from whatever source: config.toml, portage_dir, the profile
        for feature in REQUIRED_FEATURES:
            if feature not in self.settings.features:
                yield problem("feature-required", key="features", value=f"-{feature}")
        for feature in FOREIGN_FEATURES:
            if feature in self.settings.features:
                yield problem("foreign-packages", key="features", value=feature)

    def _options(self) -> Iterator[Problem]:
        """EMERGE_DEFAULT_OPTS, as emerge itself reads it."""
        from _emerge.main import parse_opts  # type: ignore[import-not-found,unused-ignore]

        text = self.settings.get("EMERGE_DEFAULT_OPTS", "")
        try:
            _, options, _ = parse_opts(shlex.split(text), silent=True)
        except (SystemExit, ValueError):
            yield problem("options-unknown", key="env", value=f"EMERGE_DEFAULT_OPTS={text}")
            return
        for names, code in (
            (FOREIGN_OPTIONS, "foreign-packages"),
            (UNWORKABLE_OPTIONS, "option-unworkable"),
        ):
            for name in names:
                if options.get(name, "n") != "n":
                    yield problem(code, key="env", value=f"EMERGE_DEFAULT_OPTS={name}")
        if options.get("--buildpkg") == "n":
            value = "EMERGE_DEFAULT_OPTS=--buildpkg=n"
            yield problem("option-unworkable", key="env", value=value)

    def _binary_packages(self) -> Iterator[Problem]:
        if self.settings.get("PORTAGE_BINHOST", "").strip():  # a password may be in it
            yield problem("foreign-packages", key="env", value="PORTAGE_BINHOST")
        if name := self.settings.get("BINPKG_COMPRESS", ""):
            value = f"BINPKG_COMPRESS={name}"
            if name not in _compressors:
                near = nearest(name, _compressors)
                yield problem("compressor-unknown", key="env", value=value, near=near)
                return
            command = _compressors[name].get("compress", "")
            program = "".join(varexpand(command, mydict=self.settings).split()[:1])
            if shutil.which(program) is None:
                yield problem("compressor-missing", key="env", value=value, names=[program])

    def _use(self) -> Iterator[Problem]:
        words = self.request["use"]
        if words:
            yield from unknown("flag-unknown", "use", words, self._flags(words))

    def _flags(self, words: list[str]) -> set[str]:
        """The USE flags with a description; if one of the words has none, those of all packages."""
        flags = {line.split(" - ")[0] for line in self._lines("profiles/use.desc")}
        flags |= {
            line.split(" - ")[0].partition(":")[2]
            for line in self._lines("profiles/use.local.desc")
        }
        flags |= self._implicit()
        for place in self.places:
            for file in place.glob("profiles/desc/*.desc"):
                flags |= {f"{file.stem}_{line.split(' - ')[0]}" for line in read(file)}
        if not {word.lstrip("-") for word in words} <= flags:
            for package in self.db.cp_all():
                flags |= self._iuse(self.db.cp_list(package))
        return flags

    def _packages(self) -> Iterator[Problem]:
        sets: Any = None
        for word in self.request["packages"]:
            if not word.startswith("@"):
                yield from self._atom("packages", word)
                continue
            sets = sets or self._sets()
            if word[1:] not in sets:
                near = nearest(word[1:], sets)
                yield problem("set-unknown", key="packages", value=word, near=near)

    def _sets(self) -> set[str]:
        from portage._sets import (  # type: ignore[import-not-found,unused-ignore]
            load_default_config,
        )

        return set(load_default_config(self.settings, portage.db[portage.root]).getSets())

    def _atom(self, key: str, word: str) -> Iterator[Problem]:
        try:
            if key == "packages" and "/" not in word:
                atom = portage.dbapi.dep_expand.dep_expand(
                    word, mydb=self.db, settings=self.settings
                )
            else:
                atom = Atom(word.removeprefix("-"), allow_wildcard=True, allow_repo=True)
        except AmbiguousPackageName as error:
            names = sorted(error.args[0])
            yield problem("package-ambiguous", key=key, value=word, names=names)
            return
        except InvalidAtom:
            yield problem("atom-malformed", key=key, value=word)
            return
        if atom.extended_syntax:
            if not self._matches(atom):
                yield problem("atom-matches-nothing", key=key, value=word)
        elif atom.cp.startswith("null/") or not self.db.cp_list(atom.cp):
            near = self._nearest_package(atom.cp)
            yield problem("package-unknown", key=key, value=word, near=near)
        elif not self._matches(atom):
            newest = [cpv[len(atom.cp) + 1 :] for cpv in self.db.cp_list(atom.cp)[-4:]]
            # a mask may be for a version that is still to come
            fatal = key == "packages"
            yield problem("version-unknown", key=key, value=word, names=newest, fatal=fatal)

    def _matches(self, atom: Any) -> Sequence[Any]:
        if atom.extended_syntax:
            packages = (c for c in self.db.cp_all() if extended_cp_match(atom.cp, c))
            return [each for c in packages for each in self.db.cp_list(c)]
        matches: Sequence[Any] = self.db.xmatch("match-all", atom.without_use)
        return matches

    def _package_flags(self, word: str, flags: list[str]) -> Iterator[Problem]:
        try:
            atom = Atom(word, allow_wildcard=True, allow_repo=True)
        except InvalidAtom:
            return
        matches = () if atom.extended_syntax else self._matches(atom)
        if not matches:
            return
        valid_flags = self._iuse(matches) | self._implicit()
        prefix = ""
        for flag in flags:
            if flag.endswith(":"):  # portage(5), package.use: "VIDEO_CARDS: intel"
                prefix = f"{flag[:-1].lower()}_"
                continue
            name = prefix + flag.lstrip("-")
            if not name.endswith("*") and name not in valid_flags:
                yield problem(
                    "package-lacks-flag",
                    key="package_use",
                    value=f"{word} {flag}",
                    names=[atom.cp],
                    near=nearest(name, valid_flags),
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
            keyword = word.removeprefix("-")
            if keyword not in ANY_KEYWORD and keyword.removeprefix("~") not in arches:
                value, near = f"{atom} {word}".strip(), nearest(keyword, arches)
                yield problem("keyword-unknown", key=key, value=value, near=near)

    def _licence_names(self) -> set[str]:
        lines = [*self._lines("profiles/license_groups")]
        lines += read(Path("/etc/portage/license_groups"))
        groups = {f"@{line.split()[0]}" for line in lines}
        return groups | {file.name for place in self.places for file in place.glob("licenses/*")}

    def _licences(
        self, key: str, words: list[str], licences: set[str], atom: str = ""
    ) -> Iterator[Problem]:
        for word in " ".join(words).split():
            licence = word.removeprefix("-")
            if licence == "*" or licence in licences:
                continue
            value, near = f"{atom} {word}".strip(), nearest(licence, licences)
            if licence.startswith("@"):
                yield problem("licence-group-unknown", key=key, value=value, near=near)
            else:
                yield problem("licence-unknown", key=key, value=value, near=near)

    def _lines(self, path: str) -> Iterator[str]:
        for place in self.places:
            yield from read(place / path)

    def _nearest_package(self, package: str) -> str:
        packages = self.db.cp_all()
        name = package.partition("/")[2]
        same = [each for each in packages if each.partition("/")[2] == name]
        return same[0] if same else nearest(package, packages)


def read(path: Path) -> Iterator[str]:
    """The lines of a file without comments and empty ones; none if there is no such file."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            text = line.partition("#")[0].strip()
            if text:
                yield text


def problem(code: str, **fields: Any) -> Problem:
    """One problem of the answer; its sentence stands under its code in tasks/messages."""
    return {"code": code, "near": "", "names": [], "fatal": True, **fields}


def unknown(code: str, key: str, words: Iterable[str], choices: Iterable[str]) -> Iterator[Problem]:
    """A problem for each word that is not known; signs and `*` are ignored."""
    for word in (word.lstrip("-") for word in words):
        if word != "*" and word not in choices:
            yield problem(code, key=key, value=word, near=nearest(word, choices))


def nearest(word: str, choices: Iterable[str]) -> str:
    """The known word that is most like this one; "" if none is."""
    return next(iter(difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)), "")


if __name__ == "__main__":
    json.dump(list(Check(json.loads(Path(sys.argv[1]).read_text())).problems()), sys.stdout)
