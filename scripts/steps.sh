# Sourced by scripts/try and scripts/test: steps with their time, and a log of each that is shown only if it fails.
# The caller sets `me` (its name) and has changed to the top folder.
# shellcheck shell=bash

export LC_ALL=C.UTF-8
mkdir -p build
step_number=0
: "${me:?set by the caller}"
step_times=build/$me-times
: >"$step_times"

seconds_since() {  # START: seconds with one decimal
  local now=${EPOCHREALTIME/[.,]/} start=${1/[.,]/}
  local tenths=$(((now - start) / 100000))
  echo "$((tenths / 10)).$((tenths % 10))"
}

timed() {  # NAME COMMAND...: runs it and keeps its time for show_times
  local name=$1 start=$EPOCHREALTIME status=0
  shift
  "$@" || status=$?
  echo "$name $(seconds_since "$start")" >>"$step_times"
  return "$status"
}

show_times() {  # what every step took, in the order in which they ended
  echo "$me: seconds of each step:"
  awk -v me="$me" '{ printf "%s: %9s  %s\n", me, $2, $1 }' "$step_times"
}

step() {  # NAME COMMAND...: runs it with its output in build/$me-NAME.log
  local name=$1 start=$EPOCHREALTIME status=0
  shift
  step_number=$((step_number + 1))
  local log=build/$me-$name.log
  printf '%s: [%d] %-10s ' "$me" "$step_number" "$name"
  timed "$name" "$@" >"$log" 2>&1 </dev/null || status=$?
  if [ "$status" -ne 0 ]; then
    printf 'FAILED after %s s; the end of %s:\n' "$(seconds_since "$start")" "$log"
    tail -n 40 "$log" | sed 's/^/  | /'
    exit "$status"
  fi
  printf '%6s s\n' "$(seconds_since "$start")"
}

# A compiler cache, where ccache is installed: for every folder of this project that is configured from here on. It keeps
# its files in CCACHE_DIR or its usual place, and a clone's folder is part of no key, so that clones serve each other.
use_compiler_cache() {
  command -v ccache >/dev/null || return 0
  export CCACHE_BASEDIR=$PWD CCACHE_DEPEND=1 CCACHE_NOHASHDIR=1
  # Without these it takes no unit that has a precompiled header (cmake/Precompile.cmake). No code asks for the time.
  export CCACHE_SLOPPINESS=pch_defines,time_macros
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache
}

# A password prompt of sudo would go unseen into a log.
run_setup() {  # [OPTION OF SETUP...]
  if scripts/setup --check "$@" >/dev/null 2>&1; then
    echo "$me: every package needed is installed"
    return
  fi
  if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
    echo "$me: packages are missing; scripts/setup installs them with sudo"
    sudo -v || exit 1
  fi
  step setup scripts/setup "$@"
}
