#!/usr/bin/env bash
# The tests that only a CUDA device can answer. With REHEARSE they are collected and skipped.
source "$(dirname "$0")/common.sh"
timeout "$(left)" python3 -m pytest -m cuda -rA --junitxml "$OUT/tests.xml" tests 2>&1 | tee "$OUT/tests.txt"
