"""A tree of small packages that changes at random: ebuilds, eclass, patches, flags, dependencies.

What a package installs depends on everything that it is built from, so a package that is reused
although one of its inputs has changed differs from one that is built anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tests.kit.case_overlay import CATEGORY

WORDS = ("ash", "beech", "elm", "fir", "oak", "pine", "yew")
PATCH = """\
--- /dev/null
+++ b/patched
@@ -0,0 +1 @@
+{word}
"""
# What the profile's @system has is not of the set.
PROVIDED = "".join(
    f"{name}-9999\n"
    for name in ("app-arch/bzip2", "app-text/tree", "dev-util/pkgconf", "sys-libs/zlib")
)


@dataclass(frozen=True)
class Package:
    """A package; it needs only packages with lower numbers, so there is no cycle."""

    number: int
    word: str
    version: int = 1
    revision: int = 0
    sub_slot: int = 1
    comment: str = ""
    inherits: bool = False
    builds_with: tuple[int, ...] = ()  # in DEPEND; what they install is installed again
    runs_with: tuple[int, ...] = ()  # in RDEPEND, with := if it also builds with them
    asks: tuple[int, ...] = ()  # their versions, by best_version; in BDEPEND
    default: bool = False  # of its flag

    @property
    def name(self) -> str:
        return f"random{self.number}"

    @property
    def pf(self) -> str:
        return f"{self.name}-{self.version}" + (f"-r{self.revision}" if self.revision else "")


@dataclass(frozen=True)
class Tree:
    """The packages by number, and what all or some of them are built with."""

    packages: Mapping[int, Package]
    eclass_word: str = WORDS[0]
    eclass_comment: str = ""
    cflags: str = "-O2"
    flags: Mapping[int, bool] = field(default_factory=dict)  # package.use
    patches: Mapping[int, str] = field(default_factory=dict)
    files: Mapping[int, str] = field(default_factory=dict)  # files/word of a package
    environment: Mapping[int, str] = field(default_factory=dict)  # WORD by package.env

    @property
    def atoms(self) -> list[str]:
        """The packages that the chroot installs."""
        return [f"{CATEGORY}/{each.name}" for each in self.packages.values()]

    def ebuilds(self) -> dict[str, str]:
        """The ebuilds by PF, as write_overlay takes them."""
        return {each.pf: self._ebuild(each) for each in self.packages.values()}

    def overlay(self) -> dict[str, str]:
        """The other files of the repository by path."""
        texts = {f"{CATEGORY}/random{n}/files/word": f"{word}\n" for n, word in self.files.items()}
        texts["eclass/random.eclass"] = f"{self.eclass_comment}ECLASS_WORD={self.eclass_word}\n"
        return texts

    def portage_dir(self) -> dict[str, str]:
        """The files of the chroot's portage_dir by path."""
        texts = {
            "profile/package.provided": PROVIDED,
            "package.use/random": _lines(self.flags, lambda on: "flag" if on else "-flag"),
            "package.env": _lines(self.environment, lambda word: f"{word}.conf"),
        }
        texts |= {f"env/{word}.conf": f'WORD="{word}"\n' for word in WORDS}
        for number, word in self.patches.items():
            path = f"patches/{CATEGORY}/random{number}/word.patch"
            texts[path] = PATCH.format(word=word)
        return texts

    def _ebuild(self, package: Package) -> str:
        def atoms(numbers: tuple[int, ...], ending: str = "") -> str:
            return " ".join(f"{CATEGORY}/{self.packages[each].name}{ending}" for each in numbers)

        bound = tuple(each for each in package.runs_with if each in package.builds_with)
        unbound = tuple(each for each in package.builds_with if each not in bound)
        free = tuple(each for each in package.runs_with if each not in bound)
        answers = [f'echo {package.word} "${{WORD}}" "${{CFLAGS}}" $(usex flag)']
        answers += [f"cat /usr/share/random{each}/answer" for each in package.builds_with]
        answers += [f"best_version {CATEGORY}/random{each}" for each in package.asks]
        answers += ['echo "${ECLASS_WORD}"'] if package.inherits else []
        answers += ['cat "${FILESDIR}"/word'] if package.number in self.files else []
        return "\n".join(
            [
                package.comment,
                "inherit random" if package.inherits else "",
                f'SLOT="0/{package.sub_slot}"',
                f'IUSE="{"+" if package.default else ""}flag"',
                f'DEPEND="{atoms(bound, ":=")} {atoms(unbound)}"',
                f'RDEPEND="{atoms(bound, ":=")} {atoms(free)}"',
                f'BDEPEND="{atoms(package.asks)}"',
                "src_prepare() { default; }",
                "src_install() {",
                "	insinto /usr/share/${PN}",
                "	[[ ! -e patched ]] || doins patched",
                f"	{{ {' && '.join(answers)}; }} > answer || die",
                "	doins answer",
                "}",
            ]
        )


def _lines(values: Mapping[int, object], text: Callable[[object], str]) -> str:
    return "".join(f"{CATEGORY}/random{n} {text(value)}\n" for n, value in values.items())


def first(dice: random.Random, count: int) -> Tree:
    """A tree of `count` packages."""
    packages: dict[int, Package] = {}
    for number in range(count):
        packages[number] = _new(dice, number)
    return Tree(packages)


def _new(dice: random.Random, number: int) -> Package:
    return _rewired(dice, Package(number, dice.choice(WORDS), inherits=dice.random() < 0.3))


def _rewired(dice: random.Random, package: Package) -> Package:
    def some(share: float) -> tuple[int, ...]:
        return tuple(each for each in range(package.number) if dice.random() < share)

    return replace(package, builds_with=some(0.3), runs_with=some(0.25), asks=some(0.1))


def changed(dice: random.Random, tree: Tree) -> tuple[str, Tree]:
    """Change one thing at random; returns what was changed, in words."""
    number = dice.choice(list(tree.packages))
    package, word = tree.packages[number], dice.choice(WORDS)
    packages: dict[str, Package] = {
        "word": replace(package, word=word),
        "comment": replace(package, comment=f"# {word} {dice.random()}"),
        "revision": replace(package, revision=package.revision + 1),
        "version": replace(package, version=package.version + 1, revision=0),
        "sub-slot": replace(package, sub_slot=package.sub_slot + 1),
        "dependencies": _rewired(dice, package),
        "inherit": replace(package, inherits=not package.inherits),
        "default of the flag": replace(package, default=not package.default),
    }
    trees: dict[str, Tree] = {
        "word of the eclass": replace(tree, eclass_word=word),
        "comment in the eclass": replace(tree, eclass_comment=f"# {dice.random()}\n"),
        "CFLAGS": replace(tree, cflags=dice.choice(["-O1", "-O2", "-O3"])),
        "package.use": replace(tree, flags={**tree.flags, number: dice.random() < 0.5}),
        "package.env": replace(tree, environment={**tree.environment, number: word}),
        "patch": replace(tree, patches={**tree.patches, number: word}),
        "files": replace(tree, files={**tree.files, number: word}),
        "new package": _with(tree, _new(dice, max(tree.packages) + 1)),
    }
    kind = dice.choice([*packages, *trees])
    if kind in trees:
        return f"{kind} ({package.name})", trees[kind]
    return f"{kind} of {package.name}", _with(tree, packages[kind])


def _with(tree: Tree, package: Package) -> Tree:
    return replace(tree, packages={**tree.packages, package.number: package})
