class CheckpointIO:
    pass
