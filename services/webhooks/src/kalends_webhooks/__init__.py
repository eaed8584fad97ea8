"""Public events, subscriptions, deliveries."""
