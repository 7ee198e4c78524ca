"""The p2pdist command, one module per group of subcommands."""
