# Sourced by the other scripts: OUT is theirs, DEVICE and SMALL follow REHEARSE.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT=${1:?usage: $0 OUT}
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
REHEARSE=${REHEARSE:-}
DEVICE=cuda
SMALL=
MINUTES=${MINUTES:-9}
if [ -n "$REHEARSE" ]; then
    DEVICE=cpu
    SMALL=_cpu_demo
fi
export nnUNet_n_proc_DA=${nnUNet_n_proc_DA:-12} PYTHONUNBUFFERED=1
export nnUNet_extTrainer="$(python3 -m nnunet_skd.tools.cli path)${nnUNet_extTrainer:+:$nnUNet_extTrainer}"
left() { # seconds until this script's time is over, 1 at least: 0 would be no limit
    local seconds=$((MINUTES * 60 - SECONDS))
    echo $((seconds > 1 ? seconds : 1))
}
model_of() { # DATASET CONFIGURATION TRAINER: its folder, an error where there is none
    ls -d "$nnUNet_results"/Dataset"$(printf %03d "$1")"_*/"$3"__nnUNetPlans__"$2"
}
train() { # DATASET CONFIGURATION FOLD TRAINER: starts or continues, and stops in time for the next script
    local folder how=()
    folder=$(model_of "$1" "$2" "$4" 2>/dev/null)/fold_$3 || true
    [ -f "$folder/validation/summary.json" ] && return 0
    compgen -G "$folder/checkpoint_*.pth" >/dev/null && how=(--c)
    in_time nnUNetv2_train "$1" "$2" "$3" -tr "$4" -device "$DEVICE" "${how[@]}"
}
in_time() { # COMMAND: stops it and this script when the time is over; a failure ends this script too
    local status=0
    # nnU-Net does not end by itself if the signal meets its final validation
    timeout --signal=INT --kill-after=20 "$(left)" "$@" || status=$?
    [ $status != 0 ] && [ "$(left)" = 1 ] && not_finished
    [ $status = 0 ] || exit $status
}
not_finished() {
    echo "not finished: run this script again"
    exit 75
}
