"""The sending side: fair choice of what is due, the POST, and what is written of it."""
