#!/usr/bin/env bash
# 100 epochs of nnUNetTrainer and of nnUNetTrainerDSKD on dataset 80, fold 0. Run again until it says done.
source "$(dirname "$0")/common.sh"
LENGTH=100epochs
[ -n "$REHEARSE" ] && LENGTH=1epoch
for trainer in nnUNetTrainer_$LENGTH nnUNetTrainerDSKD_$LENGTH; do
    train 80 2d$SMALL 0 "$trainer"
    folder=$(ls -d "$nnUNet_results"/Dataset080_*/"$trainer"__nnUNetPlans__2d$SMALL/fold_0)
    mkdir -p "$OUT/$trainer"
    cp "$folder"/training_log*.txt "$folder"/progress.png "$folder"/validation/summary.json "$OUT/$trainer/"
    cp "$folder"/distillation.* "$OUT/$trainer/" 2>/dev/null || true
done
in_time nnunet-skd compare -d 80 -c 2d$SMALL -tr nnUNetTrainer_$LENGTH nnUNetTrainerDSKD_$LENGTH -f 0 -o "$OUT/compare"
echo done
