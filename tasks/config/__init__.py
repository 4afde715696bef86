"""config.toml: the types of its values, its tables, and how it is loaded."""
