"""Other libraries that drive a Trainer. Name the module: each needs its library, and nothing here imports them."""
