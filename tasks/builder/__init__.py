"""A chroot and a package set -> binpkgs, built by the chroot's own Portage."""
