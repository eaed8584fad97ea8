"""What the integration tests stand on: a whole running system, a well-behaved client, a webhook receiver, a judge."""
