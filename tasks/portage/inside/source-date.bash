# Sets SOURCE_DATE_EPOCH for a package, for every phase after src_unpack, from its sources alone:
# the newest time of an unpacked file. So a package is built with the same date on every machine and
# on every day. https://reproducible-builds.org/specs/source-date-epoch/ - a value that is set
# already, by make.conf, package.env or the ebuild, is kept.
#
# Portage sources this file at the start of each phase and keeps exported variables from one phase to
# the next. It defines no function, as that could hide one of the ebuild or of a user's bashrc.
#
# A file that is newer than the end of pkg_setup was written by src_unpack itself (a cargo config), or
# has a date in the future; its time says nothing about the sources. 315532800 is 1980-01-01, before
# which zip archives have no dates.
case ${EBUILD_PHASE} in
	prepare | configure | compile | test | install)
		if [[ -z ${SOURCE_DATE_EPOCH} ]]; then
			export SOURCE_DATE_EPOCH=$({
				echo 315532800
				command find "${WORKDIR}" -type f ! -newer "${PORTAGE_BUILDDIR}/.setuped" \
					-printf '%Ts\n' 2> /dev/null
			} | command sort -n | command tail -n 1)
		fi
		;;
esac
