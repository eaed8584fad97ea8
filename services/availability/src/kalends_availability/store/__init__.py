"""SQL, and what a replica keeps of it in memory."""
