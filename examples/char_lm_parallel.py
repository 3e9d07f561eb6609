"""The character language model of ``char_lm.py`` on several processes, by one argument of the Trainer.

The script starts its processes itself, two on the CPU unless it is told otherwise:

    python examples/char_lm_parallel.py --strategy ddp --devices 2
    python examples/char_lm_parallel.py --strategy fsdp --devices 2
    python examples/char_lm_parallel.py --strategy fsdp_sharded --devices 2    # checkpoints are folders of shards

By torchrun, on one machine or on each of several:

    torchrun --nproc-per-node 2 examples/char_lm_parallel.py --strategy fsdp --devices 2
    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-endpoint first-machine:29400 \\
        examples/char_lm_parallel.py --strategy fsdp --devices 2 --nodes 2

By SLURM, in a job script; the run goes on by itself when the job is requeued:

    #SBATCH --nodes=2 --ntasks-per-node=2
    srun python examples/char_lm_parallel.py --strategy fsdp --devices 2 --nodes 2

Each process trains on its share of every group of batches, and the validation loss is that of all of them, so that both
strategies come to the same numbers: those of one process with batches as large as a group.
"""

from __future__ import annotations

import argparse

from char_lm import CharacterModel, PythonSources

from fulmen import Trainer, seed_everything
from fulmen.callbacks import ModelCheckpoint
from fulmen.loggers import CSVLogger
from fulmen.strategies import FSDPStrategy


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--strategy", choices=["ddp", "fsdp", "fsdp_sharded"], default="ddp")
    parser.add_argument("--accelerator", default="cpu", help="the kind of device; `auto`: the best there is")
    parser.add_argument("--devices", type=int, default=2, help="processes on each machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--max-steps", type=int, default=500, help="optimizer steps to train for")
    parser.add_argument("--val-every", type=int, default=100, help="groups of batches between two validations")
    parser.add_argument("--context", type=int, default=128, help="characters that the model looks back on")
    parser.add_argument("--width", type=int, default=96, help="features per character")
    parser.add_argument("--layers", type=int, default=3, help="transformer blocks; fsdp gathers one after the other")
    parser.add_argument("--batch-size", type=int, default=16, help="pieces of text per batch of each process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dir", default="char_lm_parallel_runs", help="the folder for metrics and checkpoints")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> float:
    """Train and validate as the command line says; returns the validation loss in bits per character."""
    arguments = parse_arguments(argv)
    seed_everything(arguments.seed)
    sharded = arguments.strategy == "fsdp_sharded"
    trainer = Trainer(
        accelerator=arguments.accelerator,
        strategy=FSDPStrategy(state_dict_type="sharded") if sharded else arguments.strategy,
        devices=arguments.devices,
        num_nodes=arguments.nodes,
        precision=arguments.precision,
        max_steps=arguments.max_steps,
        val_check_interval=arguments.val_every,
        check_val_every_n_epoch=None,  # count batches over the whole run, not within each epoch
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=CSVLogger(arguments.dir, name=arguments.strategy),
        callbacks=[ModelCheckpoint(monitor="val_bits", save_top_k=1, save_last=True)],
    )
    datamodule = PythonSources(arguments.context, arguments.batch_size)
    model = CharacterModel(arguments.context, arguments.width, arguments.layers)
    trainer.fit(model, datamodule=datamodule, ckpt_path="auto")
    bits = float(trainer.callback_metrics["val_bits"])
    trainer.print(f"\n{arguments.strategy}: {bits:.4f} bits per character on modules it has not read")
    return bits


if __name__ == "__main__":
    main()
