"""SQL by table; every statement names its columns and its tenant."""
