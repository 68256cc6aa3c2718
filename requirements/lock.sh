#!/usr/bin/env bash
# Write the locks of this folder from setup.py, keeping the versions they have where these still fit.
# Needs uv (pip install uv). To move to newer versions: requirements/lock.sh --upgrade
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

resolve() {  # OUTPUT PYTHON ARGUMENT...
    local output=$1 python=$2
    shift 2
    uv pip compile --quiet --python-version "$python" --python-platform linux --no-header \
        --no-annotate "$@" setup.py --output-file "$output"
    # Local versions (+cpu) and the CUDA packages of torch depend on the index, not on us.
    sed -i -E '/^(nvidia-|cuda-|triton==)/d; s/\+cpu$//' "$output"
}

locks=(core dev optional bench)
declare -A what=(
    [core]='Everything that runs, with the ROS 2 Jazzy wheels (ros-*), for CPython 3.11 to 3.13.'
    [dev]='Beside core.txt: tests and linters.'
    [optional]='Beside core.txt and dev.txt: the optional parts that have tests.'
    [bench]='Beside the others: the libraries that `bench learner` measures against.'
    [ubuntu-24.04]='Instead of core.txt beside a ROS 2 from apt, Jazzy or Kilted; also constraints.'
)
write() {  # NAME: write the lines of its work file.
    { printf '# %s\n# Written by requirements/lock.sh from setup.py.\n' "${what[$1]}"; cat "$work/$1"; } \
        > "requirements/$1.txt"
}

# One resolution for all, so that every lock fits the others. The oldest Python needs what the newer
# ones need, and backports. What an output file holds is kept where it fits.
extras=(--extra ros)
for lock in "${locks[@]}"; do
    cat "requirements/$lock.txt" >> "$work/all" 2> /dev/null || true
done
resolve "$work/all" 3.11 --extra ros --extra dev --extra optional --extra bench "$@"
touch "$work/before"
for lock in "${locks[@]}"; do
    [[ $lock == core ]] || extras+=(--extra "$lock")
    resolve "$work/until" 3.11 "${extras[@]}" --constraint "$work/all"
    grep -vxFf "$work/before" "$work/until" > "$work/$lock"
    cp "$work/until" "$work/before"
    write "$lock"
done
# The packages of ROS 2 Jazzy and Kilted are compiled for the numpy of Ubuntu 24.04.
echo 'numpy==1.26.4' > "$work/numpy"
cp "$work/core" "$work/ubuntu-24.04"
resolve "$work/ubuntu-24.04" 3.12 --constraint "$work/numpy"

write ubuntu-24.04
