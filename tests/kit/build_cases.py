"""Cases of builds: an overlay of small packages, each with its outcome (tests/e2e)."""

from __future__ import annotations

from tests.kit.case_overlay import CATEGORY

_ACCOUNT = """
pkg_postinst() {{
	echo "{name}:x:{number}:{number}::/:/bin/false" >> "${{EROOT}}/etc/passwd" || die
}}"""
_ANSWER = """
src_compile() {{ {{ {answer}; }} > answer || die "no answer"; }}
src_install() {{ insinto /usr/share/${{PN}}; doins answer; }}"""
_LIBRARY = """
SLOT="0/{number}"
src_install() {{ insinto /usr/include; newins - library.h <<< "#define LIBRARY {number}"; }}"""
_PROGRAM = """
src_compile() {
	echo '#include <library.h>
	int main(void) { return LIBRARY; }' | ${CHOST}-gcc -x c - -o ${PN} || die
}
src_test() { die "tests are restricted"; }
src_install() { dobin ${PN}; }"""

EBUILDS = {
    "tool-1": 'src_install() { newbin - tool <<< "echo hammer"; }',
    "library-1": _LIBRARY.format(number=1),
    "consumer-1": f"""
DEPEND="{CATEGORY}/library:="
RDEPEND="${{DEPEND}}"
RESTRICT="strip test"{_PROGRAM}""",
    # users in /etc/passwd: side effects, which layers would hide from each other
    "account-1": _ACCOUNT.format(name="first", number=4711),
    "another-1": _ACCOUNT.format(name="second", number=4712),
    "owner-1": f"""
DEPEND="{CATEGORY}/account {CATEGORY}/another"
RDEPEND="${{DEPEND}}"
src_install() {{
	keepdir /var/lib/owner/first /var/lib/owner/second
	fowners first /var/lib/owner/first
	fowners second /var/lib/owner/second
}}""",
    # what is needed afterwards, by scripts, and by nobody, as the profile provides it
    "needs-1": f"""
RDEPEND="{CATEGORY}/provided"
IDEPEND="{CATEGORY}/tool"
PDEPEND="{CATEGORY}/plugin"
pkg_postinst() {{ [[ $(tool) == hammer ]] || die "no tool for scripts"; }}""",
    "plugin-1": f"""
RDEPEND="{CATEGORY}/needs"
pkg_setup() {{ has_version {CATEGORY}/needs || die "needs is not there"; }}""",
    # packages that need each other to run
    "runs-1": f'RDEPEND="{CATEGORY}/along"',
    "along-1": f'RDEPEND="{CATEGORY}/runs"',
    "together-1": f'DEPEND="{CATEGORY}/along"'
    + _ANSWER.format(answer=f"best_version {CATEGORY}/runs && best_version {CATEGORY}/along"),
    # an eclass, and what depends on its user
    "inherits-1": "inherit cases" + _ANSWER.format(answer='echo "${CASES}"'),
    "depends-1": f'DEPEND="{CATEGORY}/inherits"'
    + _ANSWER.format(answer="cat /usr/share/inherits/answer"),
    # distfiles of others were fetched into the folder that all fetches share
    "looks-1": _ANSWER.format(answer="ls -A /var/cache/distfiles"),
    # failures
    "undeclared-1": _ANSWER.format(answer="tool"),
    "headless-1": _PROGRAM,
    "waits-1": f'DEPEND="{CATEGORY}/undeclared"',
    "accuser-1": f"""
src_configure() {{
	echo " * ERROR: {CATEGORY}/tool-1::cases failed (compile phase):"
	die "its own fault"
}}""",
    "unfetchable-1": 'SRC_URI="https://mirror.invalid/unfetchable-1.tar.gz"',
}
FILES = {
    "eclass/cases.eclass": 'CASES="one"\n',
    f"{CATEGORY}/unfetchable/Manifest": f"DIST unfetchable-1.tar.gz 9 SHA512 {'0' * 128}\n",
}
# What is changed to mend the failures, and then on the next day.
MENDED = {
    **EBUILDS,
    "undeclared-1": f'BDEPEND="{CATEGORY}/tool"{EBUILDS["undeclared-1"]}',
    "headless-1": f'DEPEND="{CATEGORY}/library:="{EBUILDS["headless-1"]}',
    "accuser-1": "",
    "unfetchable-1": "",
}
NEXT_DAY = {**MENDED, "library-2": _LIBRARY.format(number=2)}
NEXT_DAY_FILES = {"eclass/cases.eclass": '# A comment.\nCASES="one"\n'}
PORTAGE_DIR = {
    "env/test.conf": 'FEATURES="test"\n',
    "package.env": f"{CATEGORY}/consumer test.conf\n",
    "profile/package.provided": f"{CATEGORY}/provided-3\n",
}
