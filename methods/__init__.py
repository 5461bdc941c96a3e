"""The methods: one module or package each, found by the registry through its `@method` decorator."""
