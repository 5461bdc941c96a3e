"""FERPlus: files, votes and label rules."""
