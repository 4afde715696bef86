"""The basis of all packages: programs, files, downloads, signatures, git, sandboxes."""
