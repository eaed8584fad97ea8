"""What the services agree on: ids, errors, calls, events and every public Struct. Imports only msgspec and the standard library."""
