"""The public door: requests in, calls out, and the only place where problem documents are written."""
