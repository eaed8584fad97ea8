"""The gateway's SQL, one module a table."""
