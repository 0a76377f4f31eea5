"""HTTP rules that serving files needs, as plain functions without I/O."""
