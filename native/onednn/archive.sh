#!/bin/sh
# Makes onednn-VERSION.tar.xz beside this script from a checkout of oneDNN: the sources in files.txt, all headers that they
# may include, and the build's own files. The same checkout gives the same bytes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:?a checkout of oneDNN}"
version=$(sed -n 's/^set(PROJECT_VERSION "\(.*\)")/\1/p' CMakeLists.txt)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  cat "$here/files.txt"
  find src/common src/cpu include cmake -name '*.hpp' -o -name '*.h' -o -name '*.in' -o -name '*.cmake' -o -name CMakeLists.txt
  ls CMakeLists.txt src/CMakeLists.txt LICENSE THIRD-PARTY-PROGRAMS README.binary.in
} | grep -vE 'aarch64|rv64|/gpu/' | sort -u | tar -cf - -T - | tar -C "$work" -xf -
mkdir "$work/examples" "$work/tests" # which the build wants to visit
touch "$work/examples/CMakeLists.txt" "$work/tests/CMakeLists.txt"
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime=2022-01-01 -cf - . | xz -9e >"$here/onednn-$version.tar.xz"
ls -l "$here/onednn-$version.tar.xz"
