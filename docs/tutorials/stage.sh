# What the scripts of the tutorials share. The stage (test/tutorials/stage.ts) has made the hosts; $STAGE is its folder.
set -euo pipefail

# say TEXT: a remark between the commands.
say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

# on HOST COMMAND: shows the command as at that host's prompt, and runs it there.
on() {
  printf '\033[32m%s#\033[0m %s\n' "$1" "$2"
  "$STAGE/enter-$1" "$2"
}

# refused CODE HOST COMMAND: the same for a command that must end with this exit code.
refused() {
  local code=0
  on "$2" "$3" || code=$?
  [ "$code" = "$1" ] || fail "exit code $code instead of $1"
  printf '(exit code %s)\n' "$code"
}

# quietly HOST COMMAND: runs it without showing it.
quietly() { "$STAGE/enter-$1" "$2"; }

# until_so HOST COMMAND: waits up to 20 s until the command succeeds there.
until_so() {
  for _ in $(seq 400); do
    if quietly "$1" "$2" >/dev/null 2>&1; then return 0; fi
    sleep 0.05
  done
  fail "not within 20 s on $1: $2"
}

# stage power-off HOST, stage power-on HOST: what no command on a host can do.
stage() {
  printf '%s' "$*" >"$STAGE/request.new"
  mv "$STAGE/request.new" "$STAGE/request"
  for _ in $(seq 400); do
    if [ ! -e "$STAGE/request" ]; then return 0; fi
    sleep 0.05
  done
  fail "the stage does not answer: $*"
}

fail() {
  printf 'FAILED: %s\n' "$*"
  exit 1
}
