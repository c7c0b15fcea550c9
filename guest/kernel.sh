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

kernel_package() {  # NAME APT_CACHE...: the package that NAME, which is always the newest, stands for; or nothing
  local name=$1
  shift
  { "$@" depends --no-recommends --no-suggests "$name" 2>/dev/null || true; } |
    sed -n -e '/^ *Depends: \(linux-image-[^ ]*\)$/!d' -e 's//\1/p' -e q
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
  local package
  name_suite "$3" || return 1
  read_lists "$3" || { cat "$work/log" >&2; return 1; }
  package=$(kernel_package "$1" own_apt "$3" apt-cache)
  if [ -z "$package" ]; then
    echo "$me: $1 is not among the packages of $3" >&2
    return 1
  fi
  echo "$me: downloading $package of $3" >&2
  (cd "$2" && own_apt "$3" apt-get download "$package") >"$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }
}

download_kernel() {  # NAME FOLDER: the package that NAME depends on, into FOLDER
  command -v apt-get >/dev/null || fail "apt-get is missing: kernels come from Debian's packages"
  local package
  package=$(kernel_package "$1" apt-cache)
  if [ -n "$package" ]; then
    echo "$me: downloading $package" >&2
    if (cd "$2" && apt-get -q -o APT::Sandbox::User="$(id -un)" download "$package") >"$work/log" 2>&1; then
      return
    fi
  fi
  read_lists "" || { cat "$work/log" >&2; fail "the package lists cannot be read"; }
  package=$(kernel_package "$1" own_apt "" apt-cache)
  [ -n "$package" ] || fail "$1 is not among this system's packages"
  echo "$me: downloading $package" >&2
  (cd "$2" && own_apt "" apt-get download "$package") >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "$package cannot be downloaded"; }
}

unpack_kernel() {  # DEB FOLDER: makes FOLDER with vmlinuz, vmlinux, version, modules.builtin and the folder modules
  local unpacked=$2/unpacked image version top
  mkdir -p "$unpacked"
  dpkg-deb -x "$1" "$unpacked"
  image=$(echo "$unpacked"/boot/vmlinuz-*)
  [ -f "$image" ] || fail "the kernel package holds no vmlinuz"
  version=${image##*/vmlinuz-}
  # Where Debian 13 and later have them.
  top=$unpacked/usr/lib/modules/$version
  [ -d "$top" ] || top=$unpacked/lib/modules/$version
  mv "$image" "$2/vmlinuz"
  mv "$top/kernel" "$2/modules"
  mv "$top/modules.builtin" "$2/modules.builtin"
  rm -rf "$unpacked"
  python3 "$kernel_tools/extract_vmlinux.py" "$2/vmlinuz" "$2/vmlinux"
  echo "$version" >"$2/version"
}
