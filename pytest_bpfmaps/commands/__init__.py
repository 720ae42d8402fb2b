"""The subcommands of `bpfmaps`, one module each."""
