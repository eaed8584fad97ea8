"""Slots, as pure functions of settings, busy time and a moment: no I/O, no clock. The rules are numbered as in docs/slots.md."""
