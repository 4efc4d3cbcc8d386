#!/usr/bin/env bash
# Step time, memory and inference time of every trainer at nnU-Net's default plans. Needs the plans of datasets 80, 81.
source "$(dirname "$0")/common.sh"
TRAINERS="nnUNetTrainer nnUNetTrainerDSKD nnUNetTrainerACWSKD nnUNetTrainerDSKD_ACW nnUNetTrainerDSKD_unlabelled"
STEPS=40
[ -n "$REHEARSE" ] && STEPS=2
for pair in 80:2d 81:3d_fullres; do
    dataset=${pair%%:*} configuration=${pair#*:}
    rm -rf "$OUT/bench_${configuration%%_*}"
    timeout $((MINUTES * 30)) nnunet-skd bench -d "$dataset" -c "$configuration$SMALL" -tr $TRAINERS -device "$DEVICE" \
        --steps "$STEPS" --cases "$([ -n "$REHEARSE" ] && echo 0 || echo 3)" -o "$OUT/bench_${configuration%%_*}"
done
nnunet-skd bench --losses -device "$DEVICE" --steps "$STEPS" -o "$OUT/bench_losses"
