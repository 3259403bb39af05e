"""What was tried with the library: outside the wheel, run from a checkout."""
