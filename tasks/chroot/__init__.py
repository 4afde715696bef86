"""Seed -> layers -> the plan of a sandbox; and the manual changes in a chroot."""
