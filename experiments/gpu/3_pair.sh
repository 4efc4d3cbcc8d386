#!/usr/bin/env bash
# LENGTH (default 100epochs) of nnUNetTrainer and of one of ours, fold 0: DSKD on dataset 80, ACW-SKD in 3D on dataset
# 81. Run again until it says done.
source "$(dirname "$0")/common.sh"
LENGTH=${LENGTH:-100epochs}
[ -n "$REHEARSE" ] && LENGTH=1epoch
pair() { # DATASET CONFIGURATION TRAINER
    local trainer folder out="$OUT/pair_$1_$LENGTH" trainers=(nnUNetTrainer_$LENGTH "$3"_$LENGTH)
    for trainer in "${trainers[@]}"; do
        train "$1" "$2$SMALL" 0 "$trainer"
        folder=$(model_of "$1" "$2$SMALL" "$trainer")/fold_0
        mkdir -p "$out/$trainer"
        cp "$folder"/training_log*.txt "$folder"/progress.png "$folder"/validation/summary.json "$out/$trainer/"
        cp "$folder"/distillation.* "$out/$trainer/" 2>/dev/null || true
    done
    [ -d "$out/compare" ] ||
        in_time nnunet-skd compare -d "$1" -c "$2$SMALL" -tr "${trainers[@]}" -f 0 -o "$out/compare"
}
pair 80 2d nnUNetTrainerDSKD
pair 81 3d_fullres nnUNetTrainerACWSKD
echo done
