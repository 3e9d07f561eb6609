def load_module_from_checkpoint(*a, **k):
    raise NotImplementedError
