"""What every room stands on: programs, files, downloads, signatures, git, sandboxes."""
