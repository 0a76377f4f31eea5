"""Signatures of requests, URLs and forms, versions 4 and 2. Nothing here does I/O."""
