# Sourced by scripts that fill a cache: a folder of files that is there whole or not at all.
# The caller sets `files`, the names that make it whole.
# shellcheck shell=bash
# shellcheck disable=SC2154

# Where things are made before they are published; gone when the script ends, however it ends.
work=
cleanup() { if [ -n "$work" ]; then rm -rf "$work"; fi; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

lock_cache() {  # FOLDER: two builds into one would download twice, so the second waits for the first
  mkdir -p "$1"
  exec 9>"$1/.lock"
  flock 9
}

make_work() {  # FOLDER: the caller holds its lock, so what is found there was left by a script that was killed
  rm -rf "$1"/.new.*
  work=$(mktemp -d "$1/.new.XXXXXX")
}

drop_work() {
  rm -rf "$work"
  work=
}

complete() {  # FOLDER STAMP: holds all files, made from what STAMP stands for
  local file
  [ "$(cat "$1/.stamp" 2>/dev/null)" = "$2" ] || return 1
  for file in "${files[@]}"; do [ -s "$1/$file" ] || return 1; done
}

publish() {  # FROM TO STAMP: renames, the stamp last, so that a stamp means all files
  local file
  rm -f "$2/.stamp"
  for file in "${files[@]}"; do
    [ "$1/$file" -ef "$2/$file" ] || mv -f "$1/$file" "$2/$file"
  done
  echo "$3" >"$1/.stamp"
  mv -f "$1/.stamp" "$2/.stamp"
}
