"""HTTP rules for serving files, as plain functions without I/O."""
