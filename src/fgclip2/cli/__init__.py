"""The command `fgclip2`: one file per subcommand. Nothing heavy is imported before a subcommand runs."""
