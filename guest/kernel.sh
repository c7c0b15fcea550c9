# Sourced by guest/build and tests/lab/kernels: Debian's kernel packages, downloaded and unpacked but never installed.
# The caller sets `me` (its name), `apt_state` (a folder for package lists, made when needed) and `work` (a folder for
# logs) and has a function `fail`.
# shellcheck shell=bash
# shellcheck disable=SC2154

kernel_tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Apt with lists of its own: where the system's lists are missing or too old, and only root may update those. With a
# suite it sees that one alone, which the system itself is not to know of.
own_apt() {  # SUITE COMMAND...: SUITE may be empty
  local suite=$1 command=$2 state=$apt_state/${1:-system} options=()
  shift 2
  mkdir -p "$state/lists/partial" "$state/archives/partial" "$state/sources"
  if [ -n "$suite" ]; then
    options=(-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$state/sources")
  fi
  "$command" -q -o Dir::State::lists="$state/lists" -o Dir::Cache="$state" -o APT::Sandbox::User="$(id -un)" \
    "${options[@]}" "$@"
}

depends() {  # PACKAGE APT_CACHE...: what it depends on, one a line
  local package=$1
  shift
  { "$@" depends --no-recommends --no-suggests "$package" 2>/dev/null || true; } |
    sed -n 's/^ *Depends: \([^<].*\)$/\1/p'
}

# The packages that NAME, which always means the newest, stands for now: image, and after Debian 13 its parts. Nothing
# if it is not known.
kernel_packages() {  # NAME APT_CACHE...
  local name=$1 image
  shift
  image=$(depends "$name" "$@" | grep -m 1 '^linux-image-' || true)
  if [ -n "$image" ]; then
    echo "$image"
    depends "$image" "$@" | grep -Fx -e "linux-base-${image#linux-image-}" -e "linux-binary-${image#linux-image-}" \
      -e "linux-modules-${image#linux-image-}" || true
  fi
}

# The mirror that the system's own configuration names for Debian itself; nothing before its lists were read.
mirror() {  # APT_GET...
  { "$@" indextargets --format "\$(LABEL) \$(REPO_URI)" 'Created-By: Packages' 2>/dev/null || true; } |
    sed -n -e '/^Debian /!d' -e 's///p' -e q
}

read_lists() {  # SUITE
  echo "$me: reading the package lists${1:+ of $1}" >&2
  own_apt "$1" apt-get update >"$work/log" 2>&1
}

name_suite() {  # SUITE: writes the source that own_apt SUITE reads
  local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  uri=$(mirror apt-get)
  if [ -z "$uri" ]; then
    read_lists "" || { cat "$work/log" >&2; return 1; }
    uri=$(mirror own_apt "" apt-get)
  fi
  if [ -z "$uri" ]; then
    echo "$me: the configuration of apt names no mirror of Debian" >&2
    return 1
  fi
  mkdir -p "$apt_state/$1/sources"
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$1"
    if [ -r "$keyring" ]; then echo "Signed-By: $keyring"; fi
  } >"$apt_state/$1/sources/suite.sources"
}

download_from() {  # NAME FOLDER SUITE: from a suite that is not the system's; says why if it cannot
  local packages
  name_suite "$3" || return 1
  read_lists "$3" || { cat "$work/log" >&2; return 1; }
  mapfile -t packages < <(kernel_packages "$1" own_apt "$3" apt-cache)
  if [ ${#packages[@]} -eq 0 ]; then
    echo "$me: $1 is not among the packages of $3" >&2
    return 1
  fi
  echo "$me: downloading ${packages[0]} of $3" >&2
  (cd "$2" && own_apt "$3" apt-get download "${packages[@]}") >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
}

download_kernel() {  # NAME FOLDER: what NAME stands for, into FOLDER
  command -v apt-get >/dev/null || fail "apt-get is missing: kernels come from Debian's packages"
  local packages
  mapfile -t packages < <(kernel_packages "$1" apt-cache)
  if [ ${#packages[@]} -gt 0 ]; then
    echo "$me: downloading ${packages[0]}" >&2
    if (cd "$2" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "${packages[@]}") >"$work/log" 2>&1; then
      return
    fi
    # Lists that are too old name what is no longer there; what did come is not to stay beside another version.
    rm -f "$2"/*.deb
  fi
  read_lists "" || { cat "$work/log" >&2; fail "the package lists cannot be read"; }
  mapfile -t packages < <(kernel_packages "$1" own_apt "" apt-cache)
  [ ${#packages[@]} -gt 0 ] || fail "$1 is not among this system's packages"
  echo "$me: downloading ${packages[0]}" >&2
  (cd "$2" && own_apt "" apt-get download "${packages[@]}") >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "${packages[0]} cannot be downloaded"; }
}

unpack_kernel() {  # FOLDER_OF_PACKAGES FOLDER: makes FOLDER: vmlinuz, vmlinux, version, modules.builtin, folder modules
  local unpacked=$2/unpacked package folder=
  mkdir -p "$unpacked"
  for package in "$1"/*.deb; do dpkg-deb -x "$package" "$unpacked"; done
  # Below /usr since Debian 13, where the kernel itself came to lie there after it.
  for folder in "$unpacked"/usr/lib/modules/* "$unpacked"/lib/modules/*; do
    if [ -d "$folder/kernel" ]; then break; fi
  done
  mv "$folder/kernel" "$2/modules" || fail "the kernel package holds no modules"
  mv "$folder/modules.builtin" "$2/modules.builtin"
  if [ -f "$folder/vmlinuz" ]; then
    mv "$folder/vmlinuz" "$2/vmlinuz"
  else
    mv "$unpacked/boot/vmlinuz-${folder##*/}" "$2/vmlinuz" || fail "the kernel package holds no vmlinuz"
  fi
  echo "${folder##*/}" >"$2/version"
  rm -rf "$unpacked"
  python3 "$kernel_tools/extract_vmlinux.py" "$2/vmlinuz" "$2/vmlinux"
}

# The guest kit's initramfs for a kernel that unpack_kernel unpacked; `busybox` is the program's path.
write_initramfs() {  # KERNEL_FOLDER FILE
  local extras=()
  if [ "$(uname -m)" = x86_64 ]; then
    cc -std=c11 -Os -Wall -Wextra -static -nostdlib -ffreestanding -fno-stack-protector -s -Wl,--build-id=none \
      -Wl,-z,noseparate-code -o "$work/boot-timer" "$kernel_tools/boot_timer.c" || fail "boot_timer.c cannot be compiled"
    extras=(--add "vmmhost/boot-timer=$work/boot-timer")
  fi
  python3 -B "$kernel_tools/make_initramfs.py" --busybox "$busybox" --init "$kernel_tools/init" \
    --modules "$kernel_tools/modules" --kernel-modules "$1/modules" --builtin "$1/modules.builtin" "${extras[@]}" \
    --output "$2"
}
