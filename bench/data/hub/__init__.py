"""Hugging Face datasets: import and export."""
