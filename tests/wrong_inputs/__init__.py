"""Rows of wrong inputs, by what is wrong; tests/test_wrong_inputs.py tries each."""
