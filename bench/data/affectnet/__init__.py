"""AffectNet: both releases and their re-layouts."""
