"""Random number generators: seed them, derive seeds, keep and restore their states."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from fulmen.utilities.rank_zero import rank_zero_info, rank_zero_only, rank_zero_warn

MAX_SEED = 2**32 - 1  # the largest that numpy takes


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:
    """Seed the generators of ``torch`` (all devices), ``random`` and ``numpy``, and return the seed.

    Args:
        seed: 0 ... 2**32 - 1. None: the environment variable ``PL_GLOBAL_SEED``, or else 0 with a warning.
        workers: whether loader workers are to get seeds of their own, derived from this one, the worker and the rank.
        verbose: whether rank 0 logs a line that says the seed.

    ``PL_GLOBAL_SEED`` and ``PL_SEED_WORKERS`` are set, so that processes started from this one do the same.

    Raises:
        ValueError: the seed, or what the environment says, is not an integer in that range.
    """
    if seed is None:
        text = os.environ.get("PL_GLOBAL_SEED")
        if text is None:
            rank_zero_warn("No seed was given: it is 0. Write `seed_everything(0)` to say so yourself.")
            text = "0"
        try:
            seed = int(text)
        except ValueError:
            raise ValueError(f"PL_GLOBAL_SEED={text!r} in the environment is not an integer.") from None
    seed = int(seed)
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"The seed {seed} is not in the range 0 ... {MAX_SEED} (2**32 - 1).")
    if verbose:
        rank_zero_info("Seed set to %s", seed)
    os.environ["PL_GLOBAL_SEED"] = str(seed)
    os.environ["PL_SEED_WORKERS"] = str(int(workers))
    random.seed(seed)
    torch.manual_seed(seed)
    numpy_random = _numpy_random()
    if numpy_random is not None:
        numpy_random.seed(seed)
    return seed


def reset_seed() -> None:
    """Seed everything once more as the last :func:`seed_everything` did; nothing happens if there was none."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    if seed is not None:
        seed_everything(int(seed), workers=os.environ.get("PL_SEED_WORKERS") == "1", verbose=False)


# -- seeds derived from seeds ------------------------------------------------------------------------------------------


def derive_seed(*key: int | str, bits: int = 64) -> int:
    """A seed of ``bits`` bits that looks random and depends on every part of ``key``, on all machines alike.

    Neighbouring keys, such as those of worker 0 and worker 1, give unrelated seeds.
    """
    text = repr([part if isinstance(part, str) else int(part) for part in key])  # an integer of numpy counts as one
    digest = hashlib.blake2b(text.encode(), digest_size=(bits + 7) // 8).digest()
    return int.from_bytes(digest, "little") & ((1 << bits) - 1)


def seed_generators(*key: int | str) -> None:
    """Seed the generators of ``torch``, ``random`` and ``numpy`` of this process from ``key``, each with its own seed.

    Whatever is random afterwards is a function of ``key`` alone, for example of (seed, epoch, position of the batch).
    """
    torch.manual_seed(derive_seed("torch", *key, bits=63))
    _seed_python_and_numpy(*key)


def seed_host_generators(*key: int | str) -> None:
    """The same, but the generators of accelerators stay as they are."""
    torch.default_generator.manual_seed(derive_seed("torch", *key, bits=63))
    _seed_python_and_numpy(*key)


def draw_apart(share: int) -> None:
    """Let the generators of this process go on with numbers of its own, derived from its seed and from ``share``, its
    part of the data. Those of share 0 go on as they are; so do those that were set apart before and not seeded since.
    """
    global _seed_apart
    seed = torch.initial_seed()
    if share and seed != _seed_apart:
        seed_generators("share", seed, share)
        _seed_apart = torch.initial_seed()


_seed_apart: int | None = None


def _seed_python_and_numpy(*key: int | str) -> None:
    random.seed(derive_seed("random", *key))
    numpy_random = _numpy_random()
    if numpy_random is not None:
        numpy_random.seed([derive_seed("numpy", part, *key, bits=32) for part in range(4)])


def worker_init_function(worker_id: int, rank: int | None = None) -> None:
    """Give the generators of a loader worker seeds that no other worker, rank or epoch has.

    To be used as ``worker_init_fn`` of a ``DataLoader``; a loader whose workers all start with the same seed of numpy
    augments each worker's share alike.

    Args:
        worker_id: which worker of the loader.
        rank: which process of the job; None: as the launcher or the strategy said.
    """
    if rank is None:
        rank = int(rank_zero_only.rank)  # type: ignore[attr-defined]
    seed_of_the_epoch = torch.initial_seed() - worker_id  # torch adds the worker's number to a seed new in each epoch
    seed_generators(seed_of_the_epoch, worker_id, rank)


pl_worker_init_function = worker_init_function


# -- states ------------------------------------------------------------------------------------------------------------


def collect_rng_states(include_cuda: bool = True) -> dict[str, Any]:
    """The states of all generators of this process, as plain data that ``torch.load(weights_only=True)`` reads.

    Keys: ``"torch"`` (a tensor), ``"python"`` (a tuple), ``"numpy"`` (a tuple, if numpy is installed), and with
    ``include_cuda`` also ``"torch.cuda"`` (one tensor for each device, if there are any) and ``"torch.mps"``.
    """
    states: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    numpy_random = _numpy_random()
    if numpy_random is not None:
        name, words, position, has_gauss, gauss = numpy_random.get_state()
        states["numpy"] = (str(name), words.tolist(), int(position), int(has_gauss), float(gauss))
    if include_cuda:
        if torch.cuda.is_available():
            states["torch.cuda"] = torch.cuda.get_rng_state_all()
        if torch.backends.mps.is_available():
            states["torch.mps"] = torch.mps.get_rng_state()
    return states


def restore_rng_states(states: Mapping[str, Any]) -> None:
    """Put the generators into the states that :func:`collect_rng_states` found; those that are not there stay."""
    torch.set_rng_state(states["torch"].cpu())
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    numpy_random = _numpy_random()
    if numpy_random is not None and "numpy" in states:
        numpy_random.set_state(tuple(states["numpy"]))
    if "torch.cuda" in states and torch.cuda.is_available():
        # a checkpoint from a machine with more devices still gives those that are here their states
        for device, state in zip(range(torch.cuda.device_count()), states["torch.cuda"]):
            torch.cuda.set_rng_state(state.cpu(), device)
    if "torch.mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["torch.mps"].cpu())


@contextmanager
def isolate_rng(include_cuda: bool = True) -> Iterator[None]:
    """Whatever is drawn inside, the generators outside go on as if nothing had been drawn.

    Args:
        include_cuda: whether the generators of the devices are restored too, not only those of the host.
    """
    states = collect_rng_states(include_cuda)
    try:
        yield
    finally:
        restore_rng_states(states)


def _numpy_random() -> Any:
    """``numpy.random``, or None where numpy is not installed."""
    try:
        import numpy.random
    except ModuleNotFoundError:
        return None
    return numpy.random
