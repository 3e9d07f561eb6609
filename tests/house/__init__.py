"""The house laws, as tests: what keeps the code readable is checked like everything else."""
