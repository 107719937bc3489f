"""Players whose work is known to be right or wrong, one file a world: what verifiers are tried on."""
