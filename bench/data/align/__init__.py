"""Faces of raw images, brought to one template."""
