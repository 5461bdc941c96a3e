"""CK+: sequences, the CK+48 copy, and folds."""
