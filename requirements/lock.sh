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

write() {  # NAME WHAT LINES
    { printf '# %s\n# Written by requirements/lock.sh from setup.py.\n' "$2"; cat "$3"; } \
        > "requirements/$1.txt"
}

# The oldest Python needs what the newer ones need, and backports.
cat requirements/{core,dev,bench}.txt > "$work/all" 2> /dev/null || true
resolve "$work/all" 3.11 --extra ros --extra dev --extra bench "$@"
resolve "$work/core" 3.11 --extra ros --constraint "$work/all"
resolve "$work/more" 3.11 --extra ros --extra dev --constraint "$work/all"
grep -vxFf "$work/core" "$work/more" > "$work/dev"
grep -vxFf "$work/more" "$work/all" > "$work/bench"
# The packages of ROS 2 Jazzy and Kilted are compiled for the numpy of Ubuntu 24.04.
echo 'numpy==1.26.4' > "$work/numpy"
cp "$work/core" "$work/ubuntu"  # What an output file holds is kept where it fits.
resolve "$work/ubuntu" 3.12 --constraint "$work/numpy"

write core 'Everything that runs, with the ROS 2 Jazzy wheels (ros-*), for CPython 3.11 to 3.13.' \
    "$work/core"
write dev 'Beside core.txt: tests, linters and the optional parts that have tests.' "$work/dev"
write bench 'Beside core.txt and dev.txt: the libraries that `bench learner` measures against.' \
    "$work/bench"
write ubuntu-24.04 'Instead of core.txt beside a ROS 2 from apt, Jazzy or Kilted; also constraints.' \
    "$work/ubuntu"
