"""Publishing: a package set becomes an immutable generation of a binhost, which clients install."""
