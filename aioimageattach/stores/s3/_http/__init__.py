"""Requests to a bucket: sending them, watching them, and reading the responses."""
