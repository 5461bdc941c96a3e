"""RAF-DB: every layout in which it is met."""
