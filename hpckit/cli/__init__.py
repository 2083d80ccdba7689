"""The command line: thin commands, the only layer that sees all the others."""
