"""``fulmen search``: many runs of one configuration, with values that Optuna chooses."""
