"""SQL, one module a table or aggregate."""
