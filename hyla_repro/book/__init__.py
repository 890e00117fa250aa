"""What goes over all studies: collected results, verdicts, the report, costs, and chapters as programs."""
