import os

import torch

from fulmen.plugins.io.checkpoint_io import CheckpointIO


class TorchCheckpointIO(CheckpointIO):
    def save_checkpoint(self, c, p, storage_options=None):
        os.makedirs(os.path.dirname(p) or ".", exist_ok=True)
        torch.save(c, p)

    def load_checkpoint(self, p, weights_only=None):
        return torch.load(p, weights_only=True)

    def remove_checkpoint(self, p):
        os.remove(p)
