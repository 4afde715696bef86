"""Seeds: from a stage tarball to a verified tree.

Other packages import two modules, and nothing else from here:

- `download` pins a stage by what its makers signed, and opens the pinned tarball;
- `extract` unpacks an open tarball into a directory, and verifies what it wrote.

Inside, `tar_stream` reads the entries of a tarball before tar does, `policy` has the rules for
them, `dir_order` finds out whether tar needs an option for their order, `manifest` writes the
listing for `doit fsck`, `sanity` and `contents` check the unpacked tree.
"""
