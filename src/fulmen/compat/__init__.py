"""The import names of Lightning, for programs that are written for it."""
