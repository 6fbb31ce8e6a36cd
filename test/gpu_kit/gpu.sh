#!/bin/sh
# What proves and times the device "cuda" on a GPU machine that is lent for minutes and has neither Node.js nor a registry.
#   sh gpu.sh OUT first             at most 300 s: versions, smoke test, parity, our figures; beside parity, PyTorch compiles
#   sh gpu.sh OUT second            at most 360 s: beside torch.compile, ncu, sanitizer, training; with the first call's caches
#   sh gpu.sh OUT only STEP[,STEP]  some steps of either, each with its own limit
# Every step has a limit, at which it is killed. Results are written to OUT as they come, at most eight files. The last thing
# printed is a table. Beside this file lie kit.tar.xz, kit.env (what differs from kit to kit) and, for the second call, what
# the first gave back: plans.tar and compile.tar, compressed (node test/gpu_kit.mjs KIT --back FOLDER).
usage="usage: sh gpu.sh OUT first|second|only STEP[,STEP]"
begun=$(date +%s)
call=$2
chosen=,$3,
case $call in
  first) total=300 ;;
  second) total=360 ;;
  only) total=600 ;;
esac
if [ -z "$total" ] || { [ "$call" = only ] && [ -z "$3" ]; }; then
  echo "$usage" >&2
  exit 2
fi
known="smoke parity speed warm beside ncu memcheck racecheck training"
if [ "$call" = only ]; then
  for name in $(echo "$3" | tr , ' '); do
    case " $known " in *" $name "*) ;; *) echo "gpu.sh: expected steps of: $known, got $name" >&2; exit 2 ;; esac
  done
fi
kit=$(cd "$(dirname "$0")" && pwd) || exit 1
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
. "$kit/kit.env"
log=$out/log.txt
report=$out/report.txt
: >"$log"
: >"$report"
failed=0
reserve=12 # seconds, for the table

say() { printf '%-12s %4s s  %s\n' "$1" "$2" "$3" | cut -c 1-160 | tee -a "$report"; }

# Seconds that a step may take: its own limit, or what the call has left.
within() {
  left=$((begun + total - reserve - $(date +%s)))
  if [ "$1" -lt "$left" ]; then echo "$1"; else echo "$left"; fi
}

# attempt NAME LIMIT COMMAND...: runs it and says what came of it. 0: it went well; 3: what it needs is not there.
attempt() {
  name=$1
  limit=$(within "$2")
  shift 2
  if [ "$limit" -lt 3 ]; then
    say "$name" 0 "NOT RUN: no time is left"
    return 1
  fi
  printf '\n== %s (at most %s s): %s\n' "$name" "$limit" "$*" >>"$log"
  before=$(wc -c <"$log")
  start=$(date +%s)
  timeout -k 5 "$limit" "$@" >>"$log" 2>&1
  code=$?
  took=$(($(date +%s) - start))
  last=$(tail -c +$((before + 1)) "$log" | grep -vE '^[[:space:]]*$|^(Killed|Terminated|Segmentation fault|Aborted|Bus error)( \(core dumped\))?$' | tail -n 1)
  case $code in
    0) say "$name" $took "ok: $last" ;;
    3) say "$name" $took "LEFT OUT: $last" ;;
    124 | 137) say "$name" $took "STOPPED after $limit s: $last" ;;
    126 | 127) say "$name" $took "LEFT OUT: $1 is not there" ; code=3 ;;
    *) if [ $code -gt 128 ]; then say "$name" $took "KILLED by signal $((code - 128)): $last"; else say "$name" $took "FAILED with $code: $last"; fi ;;
  esac
  return $code
}

# A step that must go well, and one that may be left out.
step() { attempt "$@" || { failed=1; return 1; }; }
optional() { attempt "$@"; code=$?; [ $code -eq 0 ] || [ $code -eq 3 ] || failed=1; return $code; }

# Whether this call has a step.
has() {
  if [ "$call" != only ]; then [ "$call" = "$2" ] || [ "$2" = both ]; else case $chosen in *",$1,"*) true ;; *) false ;; esac; fi
}

# keep NAME: the folder of that name for the next call, unless that is more than comes back.
keep() {
  [ -n "$(ls -A "$work/$1" 2>/dev/null)" ] || return 0
  optional "keep $1" 25 tar -C "$work/$1" -I "$squeeze" -cf "$work/$1.tar" . || return 1
  size=$(($(wc -c <"$work/$1.tar") / 1048576))
  if [ "$size" -lt 15 ]; then mv "$work/$1.tar" "$out/"; else say "keep $1" 0 "LEFT OUT: $size MiB are more than comes back"; fi
}

finish() {
  timeout -k 5 10 node dist/bench/gpu_report.js "$out" "$work/parity.json" >>"$report" 2>&1 || say table 0 "the figures could not be read"
  [ $failed -eq 0 ] && verdict="all went well" || verdict="not all went well"
  printf '%s: %s s of at most %s, %s\n' "$call" $(($(date +%s) - begun)) "$total" "$verdict" >>"$report"
  printf '\n'
  cat "$report"
  exit $failed
}

squeeze=gzip
if command -v xz >/dev/null; then
  squeeze="xz -T0"
  step unpack 60 tar -xJf "$kit/kit.tar.xz" || exit 1
else
  step unpack 60 python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(".")' "$kit/kit.tar.xz" || exit 1
fi
mkdir -p plans compile
for cache in plans compile; do
  [ -f "$kit/$cache.tar" ] && optional "use $cache" 20 tar -C "$cache" -xf "$kit/$cache.tar"
done
export PATH="$work/bin:$PATH" SERESNET_COMMIT="$commit" SERESNET_CACHE="$work/plans" SERESNET_TEST_REPORT="$work/parity.json"
export TORCHINDUCTOR_CACHE_DIR="$work/compile/inductor" TRITON_CACHE_DIR="$work/compile/triton" PYTHONUNBUFFERED=1
if [ -z "$SERESNET_CUDNN" ]; then
  cudnn=$(timeout -k 5 20 python3 -c 'import os, nvidia.cudnn as c; print(os.path.join(list(c.__path__)[0], "lib"))' 2>/dev/null)
  [ -n "$cudnn" ] && export SERESNET_CUDNN="$cudnn"
fi

# what runs here, first: everything after it is read in its light
optional card 10 nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv,noheader
optional torch 40 python3 -c '
import sys
try:
    import torch
except ImportError as error:
    print(error)
    sys.exit(3)
print("PyTorch", torch.__version__, "CUDA", torch.version.cuda, "cuDNN", torch.backends.cudnn.version())'
torch=$?
[ $torch -eq 0 ] && peers="compile" || peers="none"
step device 20 node dist/bench/smoke.js --device "$device" --look || finish

has smoke first && step smoke 45 node dist/bench/smoke.js --device "$device" --seconds 20
warming=
if has parity first; then
  if [ "$call" = first ] && [ $torch -eq 0 ]; then
    # what PyTorch compiles now it need not compile in the second call
    timeout -k 5 "$(within 200)" node dist/bench/main.js cuda --device "$device" --warm --peers compile --cases "$cases" \
      --logits logits --results "$work" >"$out/warm.txt" 2>&1 &
    warming=$!
  fi
  step parity 110 node test/run_on.mjs "$device" --seconds 20 $parity
  [ -n "$warming" ] && kill $warming 2>/dev/null && wait $warming # it would disturb what is timed
fi
has speed first && step speed 130 node dist/bench/main.js cuda --device "$device" --peers none --cases "$cases" --rounds 3 \
  --patience 100 --logits logits --results "$out"
has speed first && keep plans
if has warm first && [ $torch -eq 0 ]; then
  optional warm $(($(within 200) - 25)) node dist/bench/main.js cuda --device "$device" --warm --peers compile \
    --cases "$cases" --logits logits --results "$work"
  keep compile
fi

has beside second && step beside 190 node dist/bench/main.js cuda --device "$device" --peers "$peers" --cases "$cases" \
  --rounds 5 --patience 150 --logits logits --results "$out"
has beside second && keep plans
# four kinds of kernels, with what they really move
has ncu second && optional ncu 50 ncu --target-processes all --clock-control none --kernel-name-base demangled \
  --kernel-name 'regex:globalPoolKernel|exciteKernel|channelwiseKernel|poolKernel' --launch-count 24 --csv \
  --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed \
  node dist/bench/main.js cuda --device "$device" --peers none --cases "${cases%%,*}" --rounds 1 --patience 45 \
  --logits logits --results "$work"
# our own kernels alone, one process, each tool once
for tool in memcheck racecheck; do
  has $tool second && optional $tool 60 compute-sanitizer --tool $tool --kernel-name kns=seresnet --error-exitcode 9 \
    node dist/bench/smoke.js --device "$device" --only all
done
has training second && step training 110 node dist/bench/main.js training --device "$device" --quick --model "$trained" \
  --dtype float16 --peers "$peers" --patience 90 --results "$out"
finish
