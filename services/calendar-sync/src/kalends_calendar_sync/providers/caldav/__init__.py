"""CalDAV (RFC 4791) with sync-collection (RFC 6578), as its servers speak it."""
