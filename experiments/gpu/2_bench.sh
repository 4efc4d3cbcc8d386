#!/usr/bin/env bash
# Step time, memory and inference time of every trainer at nnU-Net's default plans. Needs the plans of datasets 80, 81.
source "$(dirname "$0")/common.sh"
TRAINERS="nnUNetTrainerDSKD nnUNetTrainerACWSKD nnUNetTrainerDSKD_ACW nnUNetTrainerDSKD_unlabelled"
STEPS=40
CASES=3
if [ -n "$REHEARSE" ]; then STEPS=2 CASES=0; fi
# one pair at a time, so that what is measured is kept when the time is over
for dataset in 80 81; do
    configuration=$([ $dataset = 80 ] && echo 2d || echo 3d_fullres)$SMALL
    for trainer in $TRAINERS; do
        result=$OUT/bench_${dataset}_$trainer
        [ -d "$result" ] || timeout "$(left)" nnunet-skd bench -d $dataset -c "$configuration" \
            -tr nnUNetTrainer "$trainer" -device "$DEVICE" --steps "$STEPS" --cases "$CASES" -o "$result" || true
    done
done
[ -d "$OUT/bench_losses" ] ||
    timeout "$(left)" nnunet-skd bench --losses -device "$DEVICE" --steps "$STEPS" -o "$OUT/bench_losses" || true
[ "$(find "$OUT" -maxdepth 1 -name 'bench_*' | wc -l)" = 9 ] || not_finished
echo done
