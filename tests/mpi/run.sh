#!/bin/bash
# Trains on two processes of mpirun, on two that the Trainer starts itself, and tries to on three:
#     tests/mpi/run.sh FOLDER PYTHON
# The results are in FOLDER/mpi and FOLDER/ddp. MPI is installed where it is missing, which needs root; mpi4py goes into an
# environment of its own, FULMEN_MPI_ENVIRONMENT or FOLDER/environment, over the packages of PYTHON.
# Exit codes: 0 it ran; 77 MPI cannot run here, and the last line says why; else what failed.
set -u
folder=$(realpath -m "$1"); python=$2; here=$(dirname "$(realpath "$0")")
environment=${FULMEN_MPI_ENVIRONMENT:-$folder/environment}
mkdir -p "$folder" && cd "$folder" || exit 1

cannot() { echo "MPI cannot run here: $*"; exit 77; }
if ! command -v mpirun > /dev/null; then
    [ "$(id -u)" = 0 ] || cannot "there is no mpirun, and this is not root, who could install it"
    command -v apt-get > /dev/null || cannot "there is no mpirun, and no apt-get to install it"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends openmpi-bin \
        libopenmpi-dev; } > install.log 2>&1 || cannot "apt-get failed, see $folder/install.log"
fi
if [ ! -e "$environment/bin/python" ]; then
    "$python" -m venv "$environment" || cannot "no environment could be made"
    # by addsitedir, which also reads the .pth files there: a package that is installed for work on it is one of those
    "$python" -c 'import site; [print(f"import site; site.addsitedir({p!r})") for p in site.getsitepackages()]' \
        > "$("$environment/bin/python" -c 'import site; print(site.getsitepackages()[0])')/packages_below.pth"
    "$environment/bin/python" -m pip install --quiet mpi4py > pip.log 2>&1 || cannot "pip failed, see $folder/pip.log"
fi
as_root=(); [ "$(id -u)" = 0 ] && as_root=(--allow-run-as-root)
timeout 200 mpirun "${as_root[@]}" --oversubscribe -n 2 "$environment/bin/python" "$here/train.py" "$folder/mpi" || exit 1
timeout 200 "$environment/bin/python" "$here/train.py" "$folder/ddp" || exit 1
timeout 200 mpirun "${as_root[@]}" --oversubscribe -n 3 "$environment/bin/python" "$here/train.py" "$folder/three" \
    > three.txt 2>&1 && { echo "three processes trained where two were asked for"; exit 1; }
true
