"""Resolve a chroot's packages with Portage; the Python of a chroot runs this file.

python3 plan.py REQUEST.json ANSWER.json. The request is {"packages": [...]}, the words that
emerge(1) gets. The answer has one key:

    {"plan": ...}                          tasks/planner/plan.py describes it
    {"unresolved": "..."}                  what Portage says about a request that it cannot resolve
    {"undigested": [PACKAGE, FILE]}        a distfile that no Manifest lists

It imports Portage and the standard library only, and Portage in functions, so that tests of what
needs no Portage can import it. Portage has no public interface for this: what is used here is the
same in its versions 3.0.66 to 3.0.83.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

OPTIONS = (
    "--emptytree",
    "--with-bdeps=y",
    "--complete-graph=y",
    # the recorded dependencies of what the seed has are those that it was built with
    "--dynamic-deps=n",
    "--verbose-conflicts",
    "--color=n",
)
# Options that EMERGE_DEFAULT_OPTS may have and that would plan something else: with binary
# packages, build-time dependencies are optional; others write to /etc/portage or ask a person.
DROPPED_OPTIONS = (
    "--ask",
    "--autounmask-continue",
    "--autounmask-write",
    "--buildpkgonly",
    "--fetchonly",
    "--getbinpkg",
    "--getbinpkgonly",
    "--nodeps",
    "--onlydeps",
    "--pretend",
    "--usepkg",
    "--usepkgonly",
)
DEPENDENCIES = ("BDEPEND", "DEPEND", "RDEPEND", "IDEPEND", "PDEPEND")
# How the code of a package can ask which versions of others are installed.
VERSION_QUERIES = re.compile(rb"has_version|best_version|portageq|db/pkg")
# Used by every build without being a dependency of it. Names moved between categories over time.
TOOLCHAIN = frozenset(
    (
        "dev-build/make",
        "llvm-core/clang",
        "llvm-core/lld",
        "llvm-core/llvm",
        "llvm-runtimes/compiler-rt",
        "llvm-runtimes/libcxx",
        "llvm-runtimes/libcxxabi",
        "llvm-runtimes/libunwind",
        "sys-apps/portage",
        "sys-devel/binutils",
        "sys-devel/clang",
        "sys-devel/gcc",
        "sys-devel/lld",
        "sys-devel/llvm",
        "sys-devel/make",
        "sys-kernel/linux-headers",
        "sys-libs/compiler-rt",
        "sys-libs/glibc",
        "sys-libs/libcxx",
        "sys-libs/libcxxabi",
        "sys-libs/llvm-libunwind",
        "sys-libs/musl",
    )
)
# What of a database entry others can see, beside the files.
SEED_METADATA = (
    "CHOST",
    "DEFINED_PHASES",
    "EAPI",
    "PROVIDES",
    "REQUIRES",
    "SLOT",
    "repository",
    *DEPENDENCIES,
)

# Variables of a build's environment that are not settings, by the reason.
_OF_THE_PACKAGE = """
    A AA CATEGORY DEFINED_PHASES DESCRIPTION EAPI HOMEPAGE INHERITED IUSE IUSE_EFFECTIVE KEYWORDS
    LICENSE P PF PKGUSE PN PORTAGE_IUSE PORTAGE_PROPERTIES PORTAGE_REPO_NAME PORTAGE_RESTRICT
    PORTAGE_USE PR PROPERTIES PV PVR REQUIRED_USE RESTRICT SLOT SRC_URI USE
    BASH_FUNC____in_portage_iuse%% MERGE_TYPE REPLACED_BY_VERSION REPLACING_VERSIONS
"""  # the ebuild or another field of the plan has it
_DIRECTORIES = """
    BUILD_PREFIX D DISTDIR EBUILD ECLASSDIR ED FILESDIR HOME O PKGDIR PKG_LOGDIR PKG_TMPDIR
    PM_EBUILD_HOOK_DIR PORTAGE_ACTUAL_DISTDIR PORTAGE_BIN_PATH PORTAGE_BUILDDIR PORTAGE_CONFIGROOT
    PORTAGE_DEPCACHEDIR PORTAGE_ECLASS_LOCATIONS PORTAGE_PYM_PATH PORTAGE_PYTHONPATH
    PORTAGE_TMPDIR PORTDIR PORTDIR_OVERLAY RPMDIR T TEMP TMP TMPDIR WORKDIR
"""
_PARALLEL = """
    MAKEFLAGS MAKEOPTS NINJAFLAGS NINJAOPTS PORTAGE_IONICE_COMMAND PORTAGE_NICENESS
    PORTAGE_SCHEDULING_POLICY PORTAGE_SCHEDULING_PRIORITY
"""  # they decide how fast something is built
_OF_THE_CALLER = """
    COLORTERM COLUMNS CVS_RSH DISPLAY ECHANGELOG_USER EDITOR GPG_AGENT_INFO LESS LESSOPEN LINES
    LOGNAME LS_COLORS NOCOLOR NO_COLOR OLDPWD PAGER PWD SHELL SHLVL SSH_AGENT_PID SSH_AUTH_SOCK STY
    TERM TERMCAP USER WINDOW XAUTHORITY _ ftp_proxy http_proxy https_proxy no_proxy
"""
_TIMES = "BUILD_ID BUILD_TIME COUNTER SOURCE_DATE_EPOCH"
_FROM_ENV_D = "CONFIG_PROTECT CONFIG_PROTECT_MASK INFOPATH LDPATH MANPATH PATH ROOTPATH"
# Portage makes USE of them, and the variables of the groups; a profile adds some every few months.
# BOOTSTRAP_USE is for whoever builds stages: it names the default Python.
_USE_EXPAND = """
    BOOTSTRAP_USE IUSE_IMPLICIT PROFILE_ONLY_VARIABLES USE_EXPAND USE_EXPAND_HIDDEN
    USE_EXPAND_IMPLICIT USE_EXPAND_UNPREFIXED USE_ORDER
"""
_NOT_SETTINGS_EITHER = ("FETCHCOMMAND", "RESUMECOMMAND", "USE_EXPAND_VALUES_")  # prefixes
_HOUSEKEEPING = """
    ACCEPT_CHOSTS ACCEPT_KEYWORDS ACCEPT_LICENSE ACCEPT_PROPERTIES ACCEPT_RESTRICT BASH_ENV
    BINPKG_COMPRESS BINPKG_COMPRESS_FLAGS BINPKG_FORMAT BINPKG_GPG_SIGNING_BASE_COMMAND
    BINPKG_GPG_SIGNING_DIGEST BINPKG_GPG_SIGNING_GPG_HOME BINPKG_GPG_SIGNING_KEY
    BINPKG_GPG_VERIFY_BASE_COMMAND BINPKG_GPG_VERIFY_GPG_HOME CCACHE_DIR CCACHE_SIZE CLEAN_DELAY
    EBUILD_PHASE EBUILD_PHASE_FUNC EMERGE_DEFAULT_OPTS EMERGE_FROM GENTOO_MIRRORS
    GPG_VERIFY_GROUP_DROP GPG_VERIFY_USER_DROP PORTAGE_ARCHLIST PORTAGE_BACKGROUND PORTAGE_BASHRC
    PORTAGE_BASHRC_FILES PORTAGE_BINHOST PORTAGE_BINPKG_FORMAT PORTAGE_BINPKG_TAR_OPTS
    PORTAGE_BUILD_GROUP PORTAGE_BUILD_USER PORTAGE_BUNZIP2_COMMAND PORTAGE_BZIP2_COMMAND
    PORTAGE_COLORMAP PORTAGE_DEBUG PORTAGE_FEATURES PORTAGE_GID PORTAGE_GRPNAME
    PORTAGE_INTERNAL_CALLER PORTAGE_IPC_DAEMON PORTAGE_LOGDIR PORTAGE_LOG_FILE PORTAGE_PYTHON
    PORTAGE_QUIET PORTAGE_REPOSITORIES PORTAGE_REPO_REVISIONS PORTAGE_SOCKS5_PROXY
    PORTAGE_SSH_OPTS PORTAGE_USERNAME PORTAGE_VERBOSE PORTAGE_WORKDIR_MODE
    PYTHONDONTWRITEBYTECODE SANDBOX_LOG
"""  # how Portage chooses, fetches, packs, logs; what it says of repositories changes every day
NOT_SETTINGS = frozenset(
    " ".join(
        (
            _OF_THE_PACKAGE,
            _DIRECTORIES,
            _PARALLEL,
            _OF_THE_CALLER,
            _TIMES,
            _FROM_ENV_D,
            _USE_EXPAND,
            _HOUSEKEEPING,
        )
    ).split()
)
# FEATURES that decide how Portage works and not what it builds; the others are settings.
_NOT_FEATURES = """
    assume-digests binpkg-ignore-signature binpkg-logs binpkg-multi-instance
    binpkg-request-signature binpkg-signing buildpkg buildpkg-live buildpkg-proactive buildsyspkg
    candy ccache cgroup clean-logs collision-protect compress-build-logs compress-index
    config-protect-if-modified digest distcc distcc-pump distlocks downgrade-backup ebuild-locks
    fail-clean force-mirror getbinpkg gpg-keepalive icecream jobserver-token keeptemp keepwork
    lmirror merge-sync merge-use-vdb merge-wait metadata-transfer mirror news noclean notitles
    observability parallel-fetch parallel-install pkgdir-index-trusted preserve-libs protect-owned
    python-trace qa-unresolved-soname-deps sign skiprocheck split-elog split-log
    unknown-features-filter unknown-features-warn unmerge-backup unmerge-logs unmerge-orphans
    userfetch usersync warn-on-large-env webrsync-gpg
"""
NOT_FEATURES = frozenset(_NOT_FEATURES.split())
# Headers of an index that belong to the site that serves it.
_OF_SERVERS = ("DOWNLOAD_TIMESTAMP", "GENTOO_MIRRORS", "TTL", "URI")
_PATCHES = (".diff", ".patch")
_REVISION = re.compile(r"-r[0-9]+$")
_CHUNK = 1 << 20


class Unresolved(Exception):
    """Portage cannot resolve the request; it has printed why, or the argument says it."""


class Undigested(Exception):
    """A distfile that no Manifest lists: the arguments are the package and the file."""


def settings_of(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a build's environment that are settings, without those in NOT_SETTINGS.

    Words in FEATURES are sorted. The variable of a group of flags (USE_EXPAND) is empty if the
    package has no flag of it; it is left out, so that a new group in the profile changes nothing.
    A variable that is not known is a setting: to rebuild needlessly is better than to miss a
    change.
    """
    groups = set(environment.get("USE_EXPAND", "").split())
    settings = {
        name: value
        for name, value in environment.items()
        if name not in NOT_SETTINGS
        and not name.startswith(_NOT_SETTINGS_EITHER)
        and (value or name not in groups)
    }
    if "FEATURES" in settings:
        features = set(settings["FEATURES"].split()) - NOT_FEATURES
        settings["FEATURES"] = " ".join(sorted(features))
    return settings


def patches(folder: Path, category: str, pf: str, slot: str) -> list[Path]:
    """The patches that eapply_user applies to a package, in its order (phase-helpers.sh).

    A patch in a more specific directory replaces one of the same name; an empty one removes it.
    """
    chosen: dict[str, Path] = {}
    name, version, revision = split_pf(pf)
    for inner in (name, f"{name}-{version}", f"{name}-{version}-{revision}"):
        for place in (folder / category / inner, folder / category / f"{inner}:{slot}"):
            entries = sorted(place.iterdir()) if place.is_dir() else ()
            for file in (each for each in entries if each.name.endswith(_PATCHES)):
                chosen.pop(file.name, None)
                if file.is_file() and file.stat().st_size:
                    chosen[file.name] = file
    return [chosen[name] for name in sorted(chosen, key=os.fsencode)]


def env_files(folder: Path, category: str, pf: str, slot: str) -> list[Path]:
    """The files below /etc/portage/env that ebuild.sh sources for a package (__source_env_files).

    Those that package.env names are not among them: Portage reads only variables from them, and
    these are in the settings of the package.
    """
    name, version, _ = split_pf(pf)
    inner = (name, f"{name}:{slot}", f"{name}-{version}", pf)
    return [path for each in dict.fromkeys(inner) if (path := folder / category / each).is_file()]


def split_pf(pf: str) -> tuple[str, str, str]:
    """The name, version and revision of a PF: foo-1.0-r1 -> foo, 1.0, r1; r0 if it has none."""
    match = _REVISION.search(pf)
    p = pf[: match.start()] if match else pf
    name, _, version = p.rpartition("-")
    return name, version, match[0][1:] if match else "r0"


def seed_identity(entry: Path) -> str:
    """A digest of what an entry of /var/db/pkg installed, and of what others can see of it."""
    lines = read(entry / "CONTENTS").splitlines()
    facts: dict[str, Any] = {"contents": sorted(filter(None, map(without_time, lines)))}
    facts |= {key: " ".join(read(entry / key).split()) for key in SEED_METADATA}
    effective = set(read(entry / "IUSE_EFFECTIVE").split())
    use = read(entry / "USE").split()
    facts["USE"] = sorted(flag for flag in use if flag in effective or not effective)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def without_time(line: str) -> str:
    """A line of CONTENTS without the time of the file: `obj PATH MD5`, `sym PATH -> TARGET`."""
    return line.rpartition(" ")[0] if line.startswith(("obj ", "sym ")) else line


def read(path: Path) -> str:
    """The text of a file of Portage's database; "" if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    return ""


def digest(path: Path) -> str:
    """The SHA-512 of a file, in hex."""
    summing = hashlib.sha512()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            summing.update(chunk)
    return summing.hexdigest()


@functools.cache
def asks_versions(path: Path) -> bool:
    """Tell whether an ebuild, an eclass or a bashrc names a way to ask for installed versions."""
    return VERSION_QUERIES.search(path.read_bytes()) is not None


def cycles(build: Mapping[str, Iterable[str]], run: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The sets of packages that need each other to be built, each in the order of the keys.

    `build` and `run` have what each package needs. A set is a strongly connected component of
    both together that has at least one build-time edge inside: before its package is built, what
    it needs must be built and able to run. Packages that only run together are no cycle.
    """
    order = {package: number for number, package in enumerate(build)}
    edges = {package: [*build[package], *run[package]] for package in build}
    circles = []
    for component in _components(edges):
        inner = set(component)
        if len(inner) > 1 and any(inner.intersection(build[package]) for package in inner):
            circles.append(sorted(component, key=order.__getitem__))
    return sorted(circles, key=lambda circle: order[circle[0]])


def _components(edges: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Strongly connected components (Tarjan 1972), without recursion."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    work: list[tuple[str, Iterator[str]]] = []

    def enter(node: str) -> None:
        number[node] = lowest[node] = len(number)
        path.append(node)
        on_path.add(node)
        work.append((node, iter(edges[node])))

    for root in edges:
        if root not in number:
            enter(root)
        while work:
            node, rest = work[-1]
            for each in rest:
                if each not in number:
                    enter(each)
                    break
                if each in on_path:
                    lowest[node] = min(lowest[node], number[each])
            else:
                work.pop()
                if work:
                    above = work[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                if lowest[node] == number[node]:
                    component: list[str] = []
                    while not component or component[-1] != node:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    yield component


class Resolver:
    """One request, resolved by the Portage of this chroot."""

    def __init__(self, words: Sequence[str]) -> None:
        self.portage: Any = importlib.import_module("portage")
        self.graph, self.config = self._resolve(words)
        self.settings = self.portage.config(clone=self.config.target_config.settings)
        trees = self.config.target_config.trees
        self.ebuilds, self.installed = trees["porttree"].dbapi, trees["vartree"].dbapi
        self.packages = [each for each in self.graph.altlist() if is_merge(each)]
        self.planned = set(self.packages)
        self.stand_ins: dict[tuple[str, str], set[str]] = {}  # by package and need
        self.repos = {
            Path(repo.location).resolve(): repo.name for repo in self.ebuilds.repositories
        }
        self.provided = self.settings.pprovideddict

    def plan(self) -> dict[str, Any]:
        """The whole plan; its keys are the fields of Plan."""
        packages = [self._package(package) for package in self.packages]
        circles = cycles(
            {each["cpv"]: each["build_needs"] for each in packages},
            {each["cpv"]: each["run_needs"] for each in packages},
        )
        circle_of = {cpv: circle for circle in circles for cpv in circle}
        for each in packages:
            inner = set(circle_of.get(each["cpv"], ())) & set(each["build_needs"])
            seed = {cpv for need in inner for cpv in self.stand_ins[each["cpv"], need]}
            each["seed_needs"] = sorted(seed.union(each["seed_needs"]))
        return {
            "portage": str(self.portage.VERSION),  # of a lazy type in a source tree
            "packages": packages,
            "seed": self._seed(),
            "cycles": circles,
            "index_header": self._index_header(),
        }

    def _resolve(self, words: Sequence[str]) -> tuple[Any, Any]:
        """Let Portage make its graph; returns it and emerge's configuration."""
        actions, depgraph = import_emerge("actions"), import_emerge("depgraph")
        exceptions = importlib.import_module("portage.exception")
        self.portage.output.nocolor()
        try:
            config = actions.load_emerge_config()
            default = config.target_config.settings.get("EMERGE_DEFAULT_OPTS", "")
            arguments = [*shlex.split(default), *OPTIONS, *words]
            action, options, config.args = import_emerge("main").parse_opts(arguments)
            config.opts = {k: v for k, v in options.items() if k not in DROPPED_OPTIONS}
            actions.adjust_configs(config.opts, config.trees)
            parameters = import_emerge("create_depgraph_params").create_depgraph_params(
                config.opts, action
            )
            settings = config.target_config.settings
            done, graph, _ = depgraph.backtrack_depgraph(
                settings, config.trees, config.opts, parameters, action, config.args, None
            )
        except exceptions.PackageSetNotFound as error:
            raise Unresolved(f"there is no set {error.value}") from error
        except (exceptions.PortageException, ValueError) as error:
            raise Unresolved(f"{type(error).__name__}: {error}") from error
        except SystemExit as error:
            raise Unresolved from error
        if not done:
            graph.display_problems()
            raise Unresolved
        return graph, config

    def _package(self, package: Any) -> dict[str, Any]:
        """One package of the plan; its keys are the fields of PlannedPackage."""
        use = frozenset(self.graph._pkg_use_enabled(package))
        raw = {key: package._metadata[key] for key in DEPENDENCIES}
        evaluated = {key: self._evaluated(package, text, use) for key, text in raw.items()}
        self.settings.setcpv(package)
        return {
            "cpv": str(package.cpv),
            "repo": package.repo,
            "slot": package.slot,
            "sub_slot": package.sub_slot,
            "eapi": package.eapi,
            "use": sorted(use),
            "dependencies": {
                key: self.portage.dep.paren_enclose(tokens)
                for key, tokens in evaluated.items()
                if tokens
            },
            "restrict": sorted(set(package.restrict)),
            "properties": sorted(set(package.properties)),
            "phases": sorted(set(package.defined_phases) - {"-"}),
            "eclasses": self._eclasses(package),
            "distfiles": self._distfiles(package, use),
            "settings": settings_of(self.settings.environ()),
            "config_files": self._config_files(package),
            "asks_versions": self._asks_versions(package),
            **self._needs(package, evaluated),
        }

    def _evaluated(self, package: Any, text: str, use: frozenset[str]) -> list[Any]:
        """A dependency string with its USE conditionals evaluated, as nested lists of atoms."""
        tokens: list[Any] = self.portage.dep.use_reduce(
            text,
            uselist=use,
            is_valid_flag=package.iuse.is_valid_flag,
            token_class=self.portage.dep.Atom,
            eapi=package.eapi,
        )
        return tokens

    def _eclasses(self, package: Any) -> list[dict[str, str]]:
        eclasses = self._repo(package).eclass_db.eclasses
        names = sorted(set(package._metadata["INHERITED"].split()))
        places = {name: Path(eclasses[name].location).resolve().parents[1] for name in names}
        return [{"name": name, "repo": self.repos[place]} for name, place in places.items()]

    def _distfiles(self, package: Any, use: frozenset[str]) -> list[dict[str, Any]]:
        """The files that a package fetches with these flags, as its Manifest lists them."""
        repo = self._repo(package)
        names = sorted(self.ebuilds.getFetchMap(package.cpv, use, mytree=repo.location))
        if not names:
            return []
        folder = str(Path(repo.location, package.cp))
        listed = repo.load_manifest(folder, None).getTypeDigests("DIST")
        files = []
        for name in names:
            digests = dict(listed.get(name, {}))
            size = digests.pop("size", None)
            if size is None or not digests:
                raise Undigested(str(package.cpv), name)
            files.append({"name": name, "size": int(size), "digests": digests})
        return files

    def _repo(self, package: Any) -> Any:
        return self.ebuilds.repositories[package.repo]

    def _config_files(self, package: Any) -> list[dict[str, str]]:
        """Bashrcs in the order in which they are sourced, then patches; `setcpv` came before."""
        user = Path(self.settings["PORTAGE_CONFIGROOT"], "etc/portage")
        of_package = (package.category, package.pf, package.slot)
        files = [path for path in map(Path, self.settings._pbashrc) if path.is_file()]
        files += [path for path in (user / "bashrc",) if path.is_file()]
        files += env_files(user / "env", *of_package)
        files += patches(user / "patches", *of_package)
        return [{"path": str(path), "sha512": digest(path)} for path in dict.fromkeys(files)]

    def _asks_versions(self, package: Any) -> bool:
        """Tell whether a build may ask which versions are installed; `setcpv` came before."""
        eclasses = self._repo(package).eclass_db.eclasses
        files = [self.ebuilds.findname(str(package.cpv), myrepo=package.repo)]
        files += [eclasses[name].location for name in package._metadata["INHERITED"].split()]
        files += [file["path"] for file in self._config_files(package)]
        return any(asks_versions(Path(file)) for file in files)

    def _needs(self, package: Any, evaluated: Mapping[str, list[Any]]) -> dict[str, list[str]]:
        """The packages that a package needs, by the way in which it needs them."""
        needs: dict[str, set[str]] = {"build": set(), "run": set(), "post": set(), "seed": set()}
        for child, priorities in self.graph._dynamic_config.digraph.nodes[package][0].items():
            kinds = kinds_of(priorities)
            if child in self.planned and child != package:
                kinds |= {"build"} if self._at_install(evaluated, child) else set()
                for kind in kinds:
                    needs[kind].add(str(child.cpv))
                self.stand_ins[str(package.cpv), str(child.cpv)] = set(satisfied_by(priorities))
            elif kinds and getattr(child, "installed", False):
                needs["seed"].add(str(child.cpv))  # EMERGE_DEFAULT_OPTS="--exclude ..."
        needs["post"] -= needs["build"] | needs["run"]
        needs["seed"].update(self._from_seed(package, evaluated))
        return {f"{kind}_needs": sorted(cpvs) for kind, cpvs in needs.items()}

    def _at_install(self, evaluated: Mapping[str, list[Any]], child: Any) -> bool:
        """Tell whether IDEPEND names a package: it must be there when the other is merged."""
        return any(self._match(atom, child) for atom in atoms(evaluated["IDEPEND"]))

    def _from_seed(self, package: Any, evaluated: Mapping[str, list[Any]]) -> Iterator[str]:
        """Find what the seed has for dependencies that have no edge in Portage's graph.

        These are the entries of package.provided, and an older build of the package itself, by
        which a compiler is built (depgraph._add_pkg drops such edges).
        """
        for key, tokens in evaluated.items():
            for atom in atoms(tokens):
                yield from map(str, self._matches(atom, self.provided.get(atom.cp, ())))
                if key in ("BDEPEND", "DEPEND") and self._match(atom, package):
                    yield from map(str, self.installed.match(atom)[-1:])

    def _match(self, atom: Any, package: Any) -> bool:
        return bool(self._matches(atom, [package]))

    def _index_header(self) -> dict[str, str]:
        """The header that Portage writes into an index, without what belongs to a server."""
        header: dict[str, str] = {}
        tree = self.config.target_config.trees["bintree"]
        tree._update_pkgindex_header(header)
        return {
            key: " ".join(str(value).split())
            for key, value in header.items()
            if key not in _OF_SERVERS
        }

    def _matches(self, atom: Any, packages: Iterable[Any]) -> list[Any]:
        chosen: list[Any] = self.portage.dep.match_from_list(atom, list(packages))
        return chosen

    def _seed(self) -> list[dict[str, Any]]:
        """List the seed's packages: those of its database, and package.provided, without files."""
        seed = {
            str(cpv): seed_identity(Path(self.installed.getpath(cpv)))
            for cpv in self.installed.cpv_all()
        }
        for provided in self.provided.values():
            for cpv in provided:
                seed.setdefault(str(cpv), "")
        return [
            {
                "cpv": cpv,
                "identity": identity,
                "toolchain": self.portage.versions.cpv_getkey(cpv) in TOOLCHAIN,
            }
            for cpv, identity in sorted(seed.items())
        ]


def import_emerge(module: str) -> Any:
    """A module of emerge(1)."""
    return importlib.import_module(f"_emerge.{module}")


def is_merge(task: Any) -> bool:
    """Tell whether a task of Portage's list builds a package: it may also be a blocker."""
    return getattr(task, "operation", "") == "merge"


def kinds_of(priorities: Iterable[Any]) -> set[str]:
    """The kinds of an edge in Portage's graph: build, run, post."""
    kinds = set()
    for each in priorities:
        if getattr(each, "optional", False) or getattr(each, "ignored", False):
            continue
        flags = (
            ("build", getattr(each, "buildtime", False)),
            ("run", getattr(each, "runtime", False)),
            ("post", getattr(each, "runtime_post", False)),
        )
        kinds |= {kind for kind, flag in flags if flag}
    return kinds


def satisfied_by(priorities: Iterable[Any]) -> Iterator[str]:
    """The seed's packages that satisfy a build-time dependency, too: in a cycle, one must."""
    for each in priorities:
        installed: Any = getattr(each, "satisfied", None)
        if getattr(each, "buildtime", False) and hasattr(installed, "cpv"):
            yield str(installed.cpv)


def atoms(tokens: Iterable[Any]) -> Iterator[Any]:
    """The atoms in nested lists, without blockers and the sign of an any-of group."""
    for token in tokens:
        if isinstance(token, list):
            yield from atoms(token)
        elif getattr(token, "cp", None) and not token.blocker:
            yield token


@contextlib.contextmanager
def printing_to(file: BinaryIO) -> Iterator[None]:
    """Send all that this process and its children print to a file."""
    streams = (sys.stdout, sys.stderr)
    saved = [os.dup(stream.fileno()) for stream in streams]
    try:
        for stream in streams:
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
        yield
    finally:
        for stream, descriptor in zip(streams, saved, strict=True):
            stream.flush()
            os.dup2(descriptor, stream.fileno())
            os.close(descriptor)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve a request."""
    with tempfile.TemporaryFile() as printed:
        try:
            with printing_to(printed):
                return {"plan": Resolver(request["packages"]).plan()}
        except Undigested as error:
            return {"undigested": list(error.args)}
        except Unresolved as error:
            printed.seek(0)
            output = printed.read().decode("utf-8", "replace")
            return {"unresolved": "\n".join(filter(None, (output.strip(), str(error))))}


if __name__ == "__main__":
    result = answer(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
