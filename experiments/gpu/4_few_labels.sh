#!/usr/bin/env bash
# Few labels at the default plans: dataset FEW (default 580) holds few labelled cases; the folder IMAGES those without
# labels, which `nnunet-skd unlabelled` preprocessed too; dataset PSEUDO (default 680) will hold both. A model of the
# labelled cases, then three short trainings from all of its weights, side by side; DISTILL=no leaves the one with
# nnUNetTrainerDistill out, which takes most of the time. Run again until it says done.
source "$(dirname "$0")/common.sh"
FEW=${FEW:-580} PSEUDO=${PSEUDO:-680} FIRST=${FIRST:-50epochs} SECOND=${SECOND:-20epochs}
: "${IMAGES:?set it to the folder of images without labels}"
[ -n "$REHEARSE" ] && FIRST=5epochs SECOND=1epoch
[ "$FIRST" != "$SECOND" ] || { echo "FIRST and SECOND have to differ: both trainings would have one folder"; exit 2; }
raw=$(ls -d "$nnUNet_raw"/Dataset"$(printf %03d "$FEW")"_*)
predict() { # ARM DATASET TRAINER
    in_time nnUNetv2_predict -i "$raw/imagesTs" -o "$OUT/$1" -d "$2" -c 2d$SMALL -f all -tr "$3" -device "$DEVICE" \
        -npp 1 -nps 1 --continue_prediction
}
begin='import pathlib, sys
from nnunet_skd.tools.beginning import begin
begin(*sys.argv[1:6], pathlib.Path(sys.argv[6]))'
second() { # ARM DATASET TRAINER: a short training from the model's weights, then its predictions
    [ "$2" = "$PSEUDO" ] || python3 -c "$begin" "$(basename "$raw")" 2d$SMALL all "$3" nnUNetPlans "$weights"
    train "$2" 2d$SMALL all "$3"
    predict "$@"
}
pseudo_labels() {
    in_time nnunet-skd pseudo-labels -d "$FEW" -i "$IMAGES" --teacher "$model" -t "$PSEUDO" \
        -tr nnUNetTrainer_$SECOND -device "$DEVICE"
    second pseudo_labels "$PSEUDO" nnUNetTrainer_$SECOND
}
train "$FEW" 2d$SMALL all nnUNetTrainer_$FIRST
model=$(model_of "$FEW" 2d$SMALL nnUNetTrainer_$FIRST)
weights=$model/fold_all/checkpoint_final.pth
predict labelled_only "$FEW" nnUNetTrainer_$FIRST & jobs=($!)
second same_images_again "$FEW" nnUNetTrainer_$SECOND & jobs+=($!)
pseudo_labels & jobs+=($!)
arms=(labelled_only same_images_again pseudo_labels)
if [ "${DISTILL:-}" != no ]; then
    arms+=(distill)
    nnUNet_skd_teacher=$model second distill "$FEW" nnUNetTrainerDistill_$SECOND & jobs+=($!)
fi
status=0
for job in "${jobs[@]}"; do wait "$job" || status=$?; done
[ $status = 0 ] || exit $status
[ -d "$OUT/few_labels" ] ||
    in_time nnunet-skd compare --pred "${arms[@]/#/$OUT/}" --ref "$raw/labelsTs" -djfile "$raw/dataset.json" \
        -o "$OUT/few_labels"
echo done
