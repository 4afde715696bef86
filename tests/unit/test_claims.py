"""Claims of a finished package about itself, compared with the plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tasks.errors import NotTrusted
from tasks.store import claims
from tests.kit.stored import planned

ATOMS = "!!a/old a/fixed:2= || ( a/x:=[ssl] >=b/y-1:0= ) a/z:= a/u[b(+)]"
BOUND = "!!a/old a/fixed:2/2.1= || ( a/x:3/3=[ssl] >=b/y-1:0/7= ) a/z:= a/u[b(+)]"
PLANNED = replace(
    planned(sub="3"),
    dependencies={"DEPEND": ATOMS, "RDEPEND": ATOMS},
    restrict=("strip", "test"),
    properties=("live",),
    phases=("compile", "install"),
)
VALUES = {
    "CATEGORY": "app-misc",
    "PF": "hello-2.10-r1",
    "BUILD_ID": "3",
    "repository": "gentoo",
    "EAPI": "8",
    "SLOT": "0/3",
    "USE": "amd64 elibc_glibc kernel_linux nls",
    "IUSE": "+nls doc",
    "IUSE_EFFECTIVE": "amd64 doc nls",
    "DEPEND": BOUND,
    "RDEPEND": BOUND + "  >=sys-libs/glibc-2.41-r3",
    "RESTRICT": "test strip",
    "PROPERTIES": "live",
    "DEFINED_PHASES": "install compile",
    "KEYWORDS": "amd64",
}


def test_what_portage_itself_changes_is_no_difference() -> None:
    claims.check(PLANNED, 3, VALUES)
    claims.check(PLANNED, 3, {**VALUES, "DEPEND": ATOMS, "RDEPEND": ATOMS})


def test_missing_values_are_empty_and_the_subslot_is_the_slot() -> None:
    bare = {key: VALUES[key] for key in ("CATEGORY", "PF", "BUILD_ID", "repository", "EAPI")}
    package = replace(planned(), use=())
    claims.check(package, 3, {**bare, "SLOT": "0", "DEFINED_PHASES": "-"})
    claims.check(package, 3, {**bare, "SLOT": "0", "RDEPEND": ">=sys-libs/musl-1.2"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CATEGORY", "app-text"),
        ("PF", "hello-2.10"),
        ("BUILD_ID", "4"),
        ("BUILD_ID", "9" * 5000),
        ("repository", "java"),
        ("EAPI", "7"),
        ("SLOT", "0"),
        ("SLOT", "1/3"),
        ("SLOT", "0/4"),
        ("USE", "amd64 doc nls"),
        ("USE", "amd64"),
        ("IUSE_EFFECTIVE", "amd64 doc kernel_linux nls"),
        ("RESTRICT", "test"),
        ("RESTRICT", "bindist strip test"),
        ("PROPERTIES", ""),
        ("DEFINED_PHASES", "compile install postinst"),
        ("BDEPEND", "a/more"),
        ("PDEPEND", "a/more"),
        ("IDEPEND", ">=sys-libs/glibc-2.41"),
        ("DEPEND", BOUND + " >=sys-libs/glibc-2.41"),
        ("DEPEND", ""),
        ("RDEPEND", ""),
        ("RDEPEND", BOUND + " a/more"),
        ("RDEPEND", BOUND + " >=a/more-1"),
        ("RDEPEND", BOUND + " >=sys-libs/glibc-2.41 a/more"),
        ("RDEPEND", BOUND.removesuffix(" a/u[b(+)]")),
        ("RDEPEND", BOUND.replace("a/fixed:2/2.1=", "a/fixed:3/2.1=")),
        ("RDEPEND", BOUND.replace("a/fixed:2/2.1=", "a/fixed:2")),
        ("RDEPEND", BOUND.replace("a/z:=", "a/z")),
        ("RDEPEND", BOUND.replace("a/z:=", "a/zz:0/0=")),
        ("RDEPEND", BOUND.replace("a/z:=", "a/z:0/0=[ssl]")),
        ("RDEPEND", BOUND.replace(":3/3=[ssl]", ":3/3=[-ssl]")),
        ("RDEPEND", BOUND.replace("a/u[b(+)]", "a/u:0/0=[b(+)]")),
        ("RDEPEND", BOUND.replace("!!a/old", "!a/old")),
    ],
)
def test_claim_that_differs_from_the_plan_is_refused(key: str, value: str) -> None:
    with pytest.raises(NotTrusted) as caught:
        claims.check(PLANNED, 3, {**VALUES, key: value})
    assert caught.value.code == "package-claims"
    shown = "USE" if key == "IUSE_EFFECTIVE" else key
    assert f"whose {shown} is " in caught.value.message
    assert len(caught.value.message) < 1000


def test_message_names_both_values() -> None:
    with pytest.raises(NotTrusted) as caught:
        claims.check(PLANNED, 3, {**VALUES, "RESTRICT": "fetch\n\x1b[2J"})
    assert caught.value.message == (
        "the build of app-misc/hello-2.10-r1 left a package whose RESTRICT is ?[2J fetch, "
        "not strip test as planned"
    )
