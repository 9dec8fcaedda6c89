# Prepares .venv and checks headless rendering: `bash scripts/setup.sh`. Other
# scripts source it and then have the environment on their PATH.
# MOTO_VENV: another place for the environment. MUJOCO_GL: egl or osmesa.
# REQUIREMENTS: file of packages, by default requirements.txt.

set -euo pipefail

repo="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MOTO_VENV:-$repo/.venv}"
requirements="$repo/${REQUIREMENTS:-requirements.txt}"

fail() {
  echo "setup: $*" >&2
  exit 1
}

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import ensurepip, sys, venv
sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  return 1
}

# An interrupted one may have Python without pip.
is_whole() {
  "$venv/bin/python" -c 'import pip' 2>/dev/null
}

install_packages() {
  local python
  if ! is_whole; then
    [[ ! -e $venv || -f $venv/pyvenv.cfg || -z $(ls -A "$venv") ]] || fail \
      "$venv is there and is no environment of Python; it would be emptied." \
      'Choose another MOTO_VENV.'
    python="$(find_python)" || fail \
      'needs Python 3.11, 3.12 or 3.13 with the venv module on PATH. On' \
      'Debian and Ubuntu: sudo apt-get install python3 python3-venv'
    echo "setup: creating $venv with $python"
    rm -f "$venv/requirements.stamp"
    "$python" -m venv --clear "$venv"
  fi
  echo 'setup: installing requirements, which takes a few minutes'
  local packages=(-r "$requirements")
  if command -v nvidia-smi >/dev/null; then
    # TensorFlow's own CUDA libraries, at the pinned version.
    packages+=("$(sed -n 's/^tensorflow==/tensorflow[and-cuda]==/p' \
      "$repo/requirements.txt")")
  fi
  "$venv/bin/python" -m pip install --quiet "${packages[@]}"
  "$venv/bin/python" -m pip install --quiet --no-deps -e "$repo"
  # What is installed for one file of packages is there for the others too, as
  # long as what they share is the same.
  grep -qsxF "$common" "$venv/requirements.stamp" ||
    echo "$common" >"$venv/requirements.stamp"
  echo "$1" >>"$venv/requirements.stamp"
}

renders() {
  MUJOCO_GL="$1" "$venv/bin/python" - >/dev/null 2>&1 <<'PYTHON'
import mujoco

model = mujoco.MjModel.from_xml_string(
  '<mujoco><worldbody><light pos="0 0 3"/><geom size=".5"/></worldbody></mujoco>'
)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
  renderer.update_scene(data)
  assert renderer.render().any()
PYTHON
}

choose_gl() {
  local gl
  for gl in ${MUJOCO_GL:-} egl osmesa; do
    if renders "$gl"; then
      export MUJOCO_GL="$gl"
      return
    fi
  done
  return 1
}

install_gl() {
  local packages="$1"
  command -v apt-get >/dev/null || fail \
    'cannot render: neither EGL nor OSMesa works. Install the OpenGL' \
    'libraries of your system (libEGL with a driver, or libOSMesa).'
  local command="apt-get install -y --no-install-recommends $packages"
  if [[ $EUID != 0 ]]; then
    fail "cannot render without OpenGL libraries. Run and try again:
  sudo apt-get update && sudo $command"
  fi
  echo "setup: installing $packages"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $command >/dev/null
}

# With the place of this checkout, whose code the environment imports, and the
# NVIDIA driver, which decides about CUDA libraries.
common="common $(sha256sum <"$repo/requirements.txt") $repo"
common+="$(command -v nvidia-smi || true)"
hash="$(sha256sum <"$requirements") $repo"
if ! grep -qsxF "$common" "$venv/requirements.stamp" ||
  ! grep -qsxF "$hash" "$venv/requirements.stamp" || ! is_whole; then
  install_packages "$hash"
fi

if ! choose_gl; then
  install_gl 'libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libglvnd0'
  choose_gl || install_gl 'libosmesa6'
  choose_gl || fail \
    'cannot render: OpenGL is installed but neither MUJOCO_GL=egl nor' \
    'MUJOCO_GL=osmesa works. On an NVIDIA machine, install the EGL part of' \
    'the driver (libnvidia-gl).'
fi

export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"
echo "setup: $("$venv/bin/python" --version) in $venv, MUJOCO_GL=$MUJOCO_GL"
