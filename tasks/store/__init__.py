"""The store of built packages by input key, and the set of a chroot that is collected from it."""
