"""The lab: a complete Gentoo-like upstream, built on one Debian or Ubuntu machine.

It needs the machine's own distribution archive and a Python package index, nothing else. Its parts
are real: a stage with Portage, signed and dated snapshots of an ebuild repository, source archives,
an overlay, and an HTTP mirror of all that. The rest of the project sees only URLs and keys.
"""
