"""What the processes of a job tell each other beside the tensors: decisions, failures, and where they are."""

from fulmen.strategies.control.control import Control
from fulmen.strategies.control.failure import Failure, PeerFailure

__all__ = ["Control", "Failure", "PeerFailure"]
