"""The Trainer and the parts that meet in it."""
