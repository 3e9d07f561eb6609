"""What is inside checkpoint files: the command ``fulmen checkpoint``."""
