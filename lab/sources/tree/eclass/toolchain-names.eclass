# Written for the lab of binmill. Distributed under the terms of the GNU GPL, version 2 or later.

# @ECLASS: toolchain-names.eclass
# @SUPPORTED_EAPIS: 8
# @BLURB: sets the names of the toolchain for build systems that ignore CHOST

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} is not supported" ;;
esac

# @FUNCTION: toolchain_names
# @DESCRIPTION:
# Exports CC, CXX, AR, RANLIB and the like for CHOST, unless the user has set them.
toolchain_names() {
	export CC="${CC:-${CHOST}-gcc}" CXX="${CXX:-${CHOST}-g++}" CPP="${CPP:-${CHOST}-cpp}"
	export AR="${AR:-${CHOST}-ar}" RANLIB="${RANLIB:-${CHOST}-ranlib}" NM="${NM:-${CHOST}-nm}"
}
