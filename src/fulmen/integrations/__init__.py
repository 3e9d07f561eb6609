"""Fulmen in the hands of other libraries. Name the module: each needs its library, and nothing here imports them."""
