"""What setup.cfg cannot say: find all packages below nnunet_skd, beside the two that package_dir maps."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["nnunet_skd", "nnunet_skd.*"]), "nnunet_skd.trainers", "nnunet_skd.plans"])
