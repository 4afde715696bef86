# Written for the lab of binmill. Distributed under the terms of the GNU GPL, version 2 or later.

# @ECLASS: static-libs.eclass
# @SUPPORTED_EAPIS: 8
# @BLURB: the USE flag static-libs for libraries that are built with libtool

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} is not supported" ;;
esac

# The second day adds this comment: users of the eclass are built again, and come out the same.
IUSE="static-libs"

# @FUNCTION: static-libs_src_configure
static-libs_src_configure() {
	econf --enable-shared $(use_enable static-libs static) "${@}"
}

# @FUNCTION: static-libs_src_install
static-libs_src_install() {
	emake DESTDIR="${D}" install
	einstalldocs
	find "${ED}" -name '*.la' -delete || die
	use static-libs || find "${ED}" -name '*.a' -delete || die
}

EXPORT_FUNCTIONS src_configure src_install
