"""One module for each subcommand of run_all.py: `configure(parser)` adds arguments, `main(args)` returns the status."""
