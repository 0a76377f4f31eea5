"""Sources of the credentials for a bucket."""
