"""`make demo`: a newcomer's first booking through all five services, on real parts, checked at every step."""
