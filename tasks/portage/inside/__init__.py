"""Programs that run inside a chroot: they need its Portage and the standard library only."""
