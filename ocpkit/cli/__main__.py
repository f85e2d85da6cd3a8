"""`python -m ocpkit.cli`: the command line where the script `ocpkit` is not on the path."""

from ocpkit.cli import main

main()
