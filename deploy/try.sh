#!/usr/bin/env bash
# The whole road on one machine: builds procwarden, starts a collector and an
# agent in a fresh directory, mails to files, shows the first findings, and
# stops cleanly on Ctrl-C. As root it sees every process, as a plain user its
# own. Nothing outside that directory and target/ is written.
#
#   ./deploy/try.sh             until Ctrl-C
#   ./deploy/try.sh --seconds N stops by itself after N seconds
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=0
case "${1:-}" in
  "") ;;
  --seconds) seconds=${2:?--seconds needs a number} ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 64 ;;
esac

# --- what a fresh machine may lack -------------------------------------------
lacking=0
lacks() { echo "try.sh: $1 is missing; install it with: $2" >&2; lacking=1; }
install_cc="your package manager (package gcc)"
if command -v apt-get >/dev/null; then install_cc="apt-get install gcc libc6-dev"
elif command -v dnf >/dev/null; then install_cc="dnf install gcc"; fi
command -v cargo >/dev/null || lacks cargo "curl -sSf https://sh.rustup.rs | sh   (see https://rustup.rs)"
command -v cc >/dev/null || lacks "a C compiler" "$install_cc"
[ "$lacking" = 0 ] || exit 1

# --- build -------------------------------------------------------------------
begin=$(date +%s)
echo "Building (a first build takes a few minutes) ..."
cargo build --locked --quiet -p procwarden-agent -p procwarden-collector
bin=${CARGO_TARGET_DIR:-target}/debug
echo "Built in $(($(date +%s) - begin)) s."

# --- a fresh fleet -----------------------------------------------------------
home=$(mktemp -d "${TMPDIR:-/tmp}/procwarden-try.XXXXXX")
collector= agent= watch=
finish() {
  trap - EXIT INT TERM
  echo
  echo "Stopping ..."
  for pid in $watch $agent $collector; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in $watch $agent $collector; do wait "$pid" 2>/dev/null || true; done
  echo "Stopped. Data, mails and logs stay in $home (remove it when you are done)."
}
trap finish EXIT
trap 'exit 0' INT TERM

# fails WHAT LOG: says what went wrong, with the last words of the program.
fails() { echo "try.sh: $1; the end of $2:" >&2; tail -n 20 "$2" >&2; exit 1; }

mkdir "$home/mails"
"$bin/procwarden-collector" init --data-dir "$home/collector" --name localhost --name 127.0.0.1 >"$home/init.log" 2>&1 ||
  fails "the collector could not be initialised" "$home/init.log"
cat >"$home/collector.toml" <<TOML
data_dir = "$home/collector"

[listen]
fleet = "127.0.0.1:0"
enroll = "127.0.0.1:0"
admin = "unix:$home/admin.sock"

[mail]
transport = "file"
from = "procwarden@localhost"
to = ["root@localhost"]
file.dir = "$home/mails"

[alert]
group_wait = "5s"
TOML
"$bin/procwarden-collector" serve --config "$home/collector.toml" >"$home/listening" 2>"$home/collector.log" &
collector=$!
until grep -q listening "$home/listening" 2>/dev/null; do
  kill -0 "$collector" 2>/dev/null || fails "the collector ended" "$home/collector.log"
  sleep 0.1
done

procwarden() { "$bin/procwarden" --collector "unix:$home/admin.sock" "$@"; }

# A first look does not wait a minute: scan every 5 s what is older than 5 s.
printf '[scan]\nmin_age_secs = 5\ninterval_secs = 5\n' >"$home/settings.toml"
procwarden policy set default "$home/settings.toml" --comment "first look" >/dev/null
printf 'state_dir = "%s"\n' "$home/agent" >"$home/agent.toml"
procwarden token create >"$home/token" 2>/dev/null
"$bin/procwarden-agent" enroll --token-file "$home/token" --config "$home/agent.toml" >"$home/enroll.log" 2>&1 ||
  fails "the agent could not be enrolled" "$home/enroll.log"
"$bin/procwarden-agent" run --config "$home/agent.toml" 2>"$home/agent.log" &
agent=$!

# --- where everything is -----------------------------------------------------
if [ "$(id -u)" = 0 ]; then scope="every process of this machine"; else
  scope="the processes of $(id -un) only (run as root to see the whole machine)"; fi
cat <<TEXT

procwarden runs and looks at $scope.

  mails      $home/mails/       (one file each)
  logs       $home/collector.log  $home/agent.log
  commands   export PROCWARDEN_COLLECTOR=unix:$home/admin.sock
             $PWD/$bin/procwarden status
             $PWD/$bin/procwarden findings list
             $PWD/$bin/procwarden findings show ID
             $PWD/$bin/procwarden policy set default YOUR.pignore --comment "first rules"
  try it     cp /bin/sleep /dev/shm/demo && /dev/shm/demo 60     (as a user other than root)

Findings, as they arrive (Ctrl-C stops everything):
TEXT
procwarden findings list || true
procwarden findings watch &
watch=$!
stop_at=$(($(date +%s) + seconds))
while kill -0 "$collector" 2>/dev/null && kill -0 "$agent" 2>/dev/null; do
  if [ "$seconds" != 0 ] && [ "$(date +%s)" -ge "$stop_at" ]; then
    echo
    procwarden findings list
    procwarden hosts list
    exit 0
  fi
  sleep 0.5
done
kill -0 "$collector" 2>/dev/null || fails "the collector ended" "$home/collector.log"
fails "the agent ended" "$home/agent.log"
