#!/bin/sh
# Lay the wheel comma-deps-acados out in DIR as acados' documentation expects an installation, apart from the
# environment, because the wheel brings an old CasADi of its own; print what to set.
set -eu
dir=$(mkdir -p "$1" && cd "$1" && pwd)
python -m pip install --quiet --no-deps --target "$dir" comma-deps-acados==0.2.2.post92
rm -rf "$dir/casadi"
root="$dir/acados/install"
mkdir -p "$root/interfaces/acados_template"
ln -sfn "$dir/acados/acados_template" "$root/interfaces/acados_template/acados_template"
echo "export ACADOS_SOURCE_DIR=$root TERA_PATH=$root/bin/t_renderer PYTHONPATH=$dir/acados LD_LIBRARY_PATH=$root/lib"
