"""Signatures of requests, URLs and forms, in versions 4 and 2. Does no I/O."""
