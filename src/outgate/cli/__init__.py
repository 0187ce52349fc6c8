"""The command line: thin modules that parse arguments, call, and render."""
