# Written for the lab of binmill. Distributed under the terms of the GNU GPL, version 2 or later.

# @ECLASS: fresh-configure.eclass
# @SUPPORTED_EAPIS: 8
# @BLURB: generates ./configure for archives without it; the stage has the autotools

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} is not supported" ;;
esac

# @FUNCTION: fresh-configure_src_prepare
fresh-configure_src_prepare() {
	default
	[[ -e configure ]] || autoreconf --force --install || die "autoreconf failed"
}

EXPORT_FUNCTIONS src_prepare
