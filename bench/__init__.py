"""Benchmarks: each part of binmill and the usual way to do the same, in pairs, in one run."""
