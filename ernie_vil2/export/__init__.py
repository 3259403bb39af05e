"""Deployment: the two towers as graphs that an inference library runs, without the code that trained them."""
