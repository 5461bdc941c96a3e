"""The engine: declarations, planning, running, evaluating and storing. It knows no paper and no method by name."""
