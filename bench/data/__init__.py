"""Datasets: which images, which labels, which split; decoded once and memory-mapped."""
