class Problem(Exception):  # noqa: N818 - it is told to a person, not raised at one
    """What keeps a command from doing its work, in words for who typed it."""
