#!/usr/bin/env bash
# Few labels at the default plans: dataset FEW (default 580) holds few labelled cases, and images without labels that
# `nnunet-skd unlabelled` preprocessed. Run again until it says done.
source "$(dirname "$0")/common.sh"
FEW=${FEW:-580}
LENGTH=50epochs
[ -n "$REHEARSE" ] && LENGTH=5epochs
train "$FEW" 2d$SMALL all nnUNetTrainer_$LENGTH
nnUNet_skd_teacher=$(ls -d "$nnUNet_results"/Dataset"$(printf %03d "$FEW")"_*/nnUNetTrainer_"$LENGTH"__nnUNetPlans__2d$SMALL)
export nnUNet_skd_teacher
train "$FEW" 2d$SMALL all nnUNetTrainerDistill_$LENGTH
train "$FEW" 2d$SMALL all nnUNetTrainerDSKD_unlabelled_$LENGTH
raw=$(ls -d "$nnUNet_raw"/Dataset"$(printf %03d "$FEW")"_*)
arms=()
for trainer in nnUNetTrainer nnUNetTrainerDistill nnUNetTrainerDSKD_unlabelled; do
    in_time nnUNetv2_predict -i "$raw/imagesTs" -o "$OUT/$trainer" -d "$FEW" -c 2d$SMALL -f all -tr "${trainer}_$LENGTH" \
        -device "$DEVICE" -npp 1 -nps 1
    arms+=("$OUT/$trainer")
done
in_time nnunet-skd compare --pred "${arms[@]}" --ref "$raw/labelsTs" -djfile "$raw/dataset.json" -o "$OUT/compare"
echo done
