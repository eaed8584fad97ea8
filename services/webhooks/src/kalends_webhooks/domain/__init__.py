"""What webhooks decide, without I/O: which public events there are, who gets them, what is sent, and what follows an answer."""
