"""The lab: a whole Gentoo-like upstream made on one Debian or Ubuntu machine.

It needs the machine's own distribution archive and a Python package index, nothing else. What it
makes is real: a stage with Portage, a signed and dated ebuild repository, source archives, an
overlay, and an HTTP mirror of them. Everything else in the project sees only URLs and keys.
"""
