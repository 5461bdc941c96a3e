"""What the four papers print, as data (one YAML file per paper), and the package `tables.render` that sets it beside
our results.

The YAML files are read by `bench.declare`; this package only holds them.
"""
