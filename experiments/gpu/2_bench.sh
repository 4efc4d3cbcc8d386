#!/usr/bin/env bash
# Step time, memory and inference time of every trainer at nnU-Net's default plans. Needs the plans of datasets 80, 81.
source "$(dirname "$0")/common.sh"
TRAINERS="nnUNetTrainerDSKD nnUNetTrainerACWSKD nnUNetTrainerDSKD_ACW nnUNetTrainerDSKD_unlabelled"
STEPS=40 CASES=3
if [ -n "$REHEARSE" ]; then STEPS=2 CASES=0; fi
bench() { # RESULT ARGUMENTS
    local result=$OUT/$1
    shift
    [ -d "$result" ] || in_time nnunet-skd bench -device "$DEVICE" --steps "$STEPS" -o "$result" "$@"
}
# all at once: nnUNetTrainer is compiled and timed once. Where the GPU's memory is too small, name them in pairs
bench bench_80 -d 80 -c 2d$SMALL -tr nnUNetTrainer $TRAINERS --cases "$CASES"
bench bench_81 -d 81 -c 3d_fullres$SMALL -tr nnUNetTrainer $TRAINERS --cases "$CASES"
bench bench_losses --losses
echo done
