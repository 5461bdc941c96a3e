"""A user's own images, declared by a ferbench.yaml."""
