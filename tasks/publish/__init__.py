"""A set of binpkgs -> an immutable generation of a binhost -> a client that installs from it."""
