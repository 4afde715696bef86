"""The root in which one package is built: layers, the build in it, what the build wrote."""
