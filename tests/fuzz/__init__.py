"""Files that a fuzzer makes up, guided by what of our code they reach."""
