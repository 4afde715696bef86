# Written for the lab of binmill. Distributed under the terms of the GNU GPL, version 2 or later.

# @ECLASS: distribution-files.eclass
# @SUPPORTED_EAPIS: 8
# @BLURB: installs what the stage has of its distribution, so that a package owns it

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} is not supported" ;;
esac

# @FUNCTION: distribution_files_install
# @USAGE: <pattern>
# @DESCRIPTION:
# Installs the files of all binary packages that were built from a source package with that name.
distribution_files_install() {
	local source package path top packages=()
	while read -r source package; do
		[[ ${source} == ${1} ]] && packages+=( "${package}" )
	done < <(dpkg-query --show --showformat='${source:Package} ${Package}\n')
	[[ ${packages[*]} ]] || die "the stage has nothing of ${1}"
	while read -r path; do
		[[ -L ${path} || -f ${path} ]] || continue
		top=${path#/}
		[[ -L /${top%%/*} ]] && path=/usr${path}  # /lib is a link to /usr/lib
		echo ".${path}"
	done < <(dpkg-query --listfiles "${packages[@]}") > "${T}"/files
	tar --create --directory=/ --no-recursion --files-from="${T}"/files |
		tar --extract --directory="${ED}" || die
}
