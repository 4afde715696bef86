"""Programs for the Python of a chroot; they import its Portage and the standard library only."""
