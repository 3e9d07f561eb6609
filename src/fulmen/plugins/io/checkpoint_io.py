class CheckpointIO: pass
