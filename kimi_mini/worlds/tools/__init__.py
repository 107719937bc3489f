"""Tools: declarations and checked calls, and isolated engines for code that a model wrote."""
