#!/usr/bin/env bash
# Write the locks of this folder from setup.py and docs.in, keeping the versions that still fit.
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

declare -A what=(
    [core]='Everything that runs, with the ROS 2 Jazzy wheels (ros-*), for CPython 3.11 to 3.13.'
    [dev]='Beside core.txt: tests.'
    [lint]='Beside core.txt and dev.txt: what `make lint` needs.'
    [docs]='Beside core.txt and dev.txt: what `make docs` needs.'
    [optional]='Beside core.txt and dev.txt: the optional parts that have tests.'
    [bench]='Beside core.txt and dev.txt: the libraries that `bench learner` measures against.'
    [ubuntu-24.04]='Instead of core.txt beside a ROS 2 from apt, Jazzy or Kilted; also constraints.'
)
write() {  # NAME: write the lines of its work file.
    { printf '# %s\n# Written by requirements/lock.sh from setup.py and docs.in.\n' "${what[$1]}"; cat "$work/$1"; } \
        > "requirements/$1.txt"
}
beside_setup() {  # NAME ARGUMENT...: write what a lock adds to those of `make setup`.
    local name=$1
    shift
    resolve "$work/until" 3.11 --extra ros --extra dev "$@" --constraint "$work/all"
    grep -vxFf "$work/setup" "$work/until" > "$work/$name"
    rm "$work/until"
    write "$name"
}

# One resolution for all, so that every lock fits the others. The oldest Python needs what the newer
# ones need, and backports. What an output file holds is kept where it fits.
for lock in core dev lint docs optional bench; do
    cat "requirements/$lock.txt" >> "$work/all" 2> /dev/null || true
done
resolve "$work/all" 3.11 --extra ros --extra dev --extra lint --extra optional --extra bench \
    requirements/docs.in "$@"
resolve "$work/core" 3.11 --extra ros --constraint "$work/all"
resolve "$work/setup" 3.11 --extra ros --extra dev --constraint "$work/all"
grep -vxFf "$work/core" "$work/setup" > "$work/dev"
write core
write dev
beside_setup lint --extra lint
beside_setup docs requirements/docs.in
beside_setup optional --extra optional
beside_setup bench --extra bench
# The packages of ROS 2 Jazzy and Kilted are compiled for the numpy of Ubuntu 24.04.
echo 'numpy==1.26.4' > "$work/numpy"
cp "$work/core" "$work/ubuntu-24.04"
resolve "$work/ubuntu-24.04" 3.12 --constraint "$work/numpy"

write ubuntu-24.04

{ printf '# Beside optional.txt, with `pip install --no-deps`: Meta-World, which has tests.\n'
  printf '# Written by requirements/lock.sh from metaworld.in.\n'
  uv pip compile --quiet --no-deps --python-version 3.11 --python-platform linux --no-header \
      --no-annotate requirements/metaworld.in "$@"; } > "$work/metaworld"
cp "$work/metaworld" requirements/metaworld.txt

# The same versions with the digest of every file: make setup HASHED=1. torch is the wheel without
# CUDA, of https://download.pytorch.org/whl/cpu, whose digests are in torch-cpu.sha256.
mkdir -p requirements/hashed
torch=$(awk '/^[^#]/ {printf " \\\\\\n    --hash=sha256:%s", $1}' requirements/torch-cpu.sha256)
for lock in core dev lint docs optional bench metaworld; do
    { printf '# %s.txt with the digest of every file. Written by requirements/lock.sh.\n' "$lock"
      # With digests pip wants an extra that is asked for to be pinned as such (mujoco, pytest-cov).
      grep -v '^torch==' "requirements/$lock.txt" | uv pip compile --quiet --no-deps \
          --generate-hashes --python-version 3.11 --python-platform linux --no-header \
          --no-annotate - | sed 's/^etils==/etils[epath]==/; s/^coverage==/coverage[toml]==/'
      { grep '^torch==' "requirements/$lock.txt" || true; } | sed "s/\$/$torch/"; } \
        > "requirements/hashed/$lock.txt"
done
