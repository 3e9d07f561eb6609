"""The four parts of a checkpoint policy: when to save, what to keep, how to name, how to write.

Each part is readable alone and knows no trainer's internals; :class:`fulmen.callbacks.model_checkpoint.ModelCheckpoint`
puts them together.
"""
