"""The ``nnunet-skd`` command line and the functions behind it. Nothing here is part of the training path."""
