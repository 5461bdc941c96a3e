"""One module for each subcommand of run_all.py: `configure(parser)` adds its arguments, `main(args)` returns the exit status."""
