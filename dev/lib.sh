# Shared by the scripts of dev/: where things lie, and how a step is shown. Sourced, never run.
#
# A step prints one line when it starts, a sign of life every 15 s, and its time when that was more than 2 s. Its own output goes
# to a file that is shown only when it fails.
set -euo pipefail

# --help is the comment at the head of the script.
case ${1-} in
  -h | --help) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; exit 0 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$root/.dev
cache=${XDG_CACHE_HOME:-$HOME/.cache}/podvisor
registry=127.0.0.1:15000
mkdir -p "$state/log" "$cache"

say() { printf '» %s\n' "$*" >&2; }
fail() { printf '✗ %s\n' "$*" >&2; exit 1; }

# tick_until_killed: a sign of life for a step that takes long.
tick_until_killed() {
  local nap=
  trap 'kill "$nap" 2>/dev/null; exit 0' TERM
  for ((elapsed_s = 15; ; elapsed_s += 15)); do
    sleep 15 </dev/null >/dev/null 2>&1 & nap=$!
    wait "$nap"
    printf '    still at it (%d s)\n' "$elapsed_s" >&2
  done
}

# step TEXT COMMAND...: the command may be a function; it runs in a subshell under `set -e`. Its output lies in .dev/log/ afterwards.
step() {
  local text=$1 started_ms ticker status=0 took_ms log
  shift
  log=$state/log/$(printf '%s' "$text" | tr -cs 'a-zA-Z0-9' '-' | cut -c1-60).log
  started_ms=$(date +%s%3N)
  say "$text"
  tick_until_killed & ticker=$!
  ( set -e; "$@" ) >"$log" 2>&1 </dev/null & wait $! || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  took_ms=$(($(date +%s%3N) - started_ms))
  if [ "$status" -ne 0 ]; then
    tail -n 60 "$log" >&2
    fail "failed: $text (exit $status; whole output: $log)"
  fi
  [ "$took_ms" -lt 2000 ] || printf '    %d.%d s\n' $((took_ms / 1000)) $((took_ms % 1000 / 100)) >&2
}

# one_at_a_time: of the scripts that change the cluster one runs at a time on a machine; held until this process has ended.
one_at_a_time() {
  [ -z "${PODVISOR_LOCKED:-}" ] || return 0
  exec 8>"$cache/cluster.lock"
  flock --nonblock 8 || { say "waiting for another run that changes the cluster"; flock 8; }
  export PODVISOR_LOCKED=1
}

# host_packages PACKAGE...: installs those of Debian's packages that are missing on this machine, after saying so.
host_packages() {
  local package missing=()
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "missing on this machine: ${missing[*]}. Install them: sudo apt-get install ${missing[*]}"
  step "installing Debian packages on this machine: ${missing[*]}" install_packages "${missing[@]}"
}

install_packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# tool FAMILY: the directory of a family's binaries, built or fetched when missing.
tool() { "$root/dev/tools/build.sh" "$1"; }

# compose ARGS...: docker compose on the stack of this checkout, with the optional nodes in view.
compose() { docker compose --project-directory "$root" --file "$root/docker-compose.yml" "$@"; }

# until_established DIRECTORY: the definitions of kinds that are in it are served. kubectl does not wait for a condition of what has no
# conditions yet.
until_established() {
  local ends=$((SECONDS + 20))
  until "$root/dev/kubectl" wait --for=condition=Established --timeout=20s -f "$1"; do
    [ $SECONDS -lt $ends ] || return 1
    sleep 0.2
  done
}

# Whose cluster it is, written on its volumes: what is in them outlives containers, and even this checkout.
[ -s "$state/checkout" ] || printf '%s %s\n' "$root" "$(cat /proc/sys/kernel/random/uuid)" >"$state/checkout"
PODVISOR_CHECKOUT=$(cat "$state/checkout")
export PODVISOR_CHECKOUT

# stack_owner: PODVISOR_CHECKOUT of the checkout that the stack on this machine belongs to, running or not; nothing if there is none.
stack_owner() {
  docker volume ls --filter label=com.docker.compose.project=podvisor --format '{{.Label "podvisor.dev/checkout"}}' |
    sed 's/^$/unknown/' | sort -u | head -n 1
}
