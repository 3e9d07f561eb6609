"""The folder to put into ``PYTHONPATH``: ``sitecustomize`` in it is imported by Python itself when it starts."""
