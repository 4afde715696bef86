"""The packages of a set, what each depends on, which must be built, and in which order."""
