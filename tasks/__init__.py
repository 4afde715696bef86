"""binmill: a reproducible binary-package factory for Gentoo.

The rooms follow the flow of data: snapshot -> chroot -> build -> publish; `system` is what
they all stand on, `engine` is what drives them, `lab` makes an upstream to try them on.
docs/architecture.md draws it.
"""

__version__ = "0.1"
