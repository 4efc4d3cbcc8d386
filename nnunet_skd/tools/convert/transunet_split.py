"""TransUNet's split of the 30 labelled CT scans of Synapse (BTCV), which the literature compares on."""

TEST = {1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38}
TRAIN = (set(range(1, 11)) | set(range(21, 41))) - TEST  # the challenge's labelled scans have no numbers 11 to 20
