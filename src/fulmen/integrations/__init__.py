"""Other libraries that drive a Trainer, one module for each; each imports its library, and nothing else does."""
