#!/bin/sh
# Runs nvcc as CMake asks for it, and keeps what it says (ptxas -v: each kernel's registers, and those spilled) beside the
# object, in OBJECT.ptxas, so that it is there after a build that compiled other files alone.
object=
before=
for word; do
  if [ "$before" = -o ]; then object=$word; fi
  before=$word
done
"$@" 2>"$object.ptxas"
status=$?
if [ $status -ne 0 ]; then cat "$object.ptxas" >&2; fi
exit $status
