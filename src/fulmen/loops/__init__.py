"""What runs: read ``fit.py`` first."""
