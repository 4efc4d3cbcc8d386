#!/usr/bin/env bash
# The tests that only a CUDA device can answer. With REHEARSE they are collected and skipped.
source "$(dirname "$0")/common.sh"
timeout "$(left)" python3 -m pytest -m cuda -n 4 -rA --junitxml "$OUT/tests.xml" tests/training/test_cuda.py 2>&1 | tee "$OUT/tests.txt"
