"""Where the credentials of a bucket come from."""
