"""The one set of versions: what the wheels in requirements/ carry, and the images that stand for them."""

POSTGRES_IMAGE = "postgres:18.6-alpine"
NATS_IMAGE = "nats:2.15.1-alpine"
VALKEY_IMAGE = "valkey/valkey:9.1.2-alpine"
