"""Fuzzing: generated files, guided by the code of this library that they reach."""
