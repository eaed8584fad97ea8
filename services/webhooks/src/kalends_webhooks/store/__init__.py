"""SQL as named constants, one module a table or a group that is written together."""
