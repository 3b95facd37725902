#!/usr/bin/env bash
# What run.sh has checked, in the guest: procwarden is installed as README
# says, and each check below says `ok NAME` or `FAILED NAME: why`.
#
#   guest.sh                  all of the file `checks` beside this one
#   guest.sh --list [NAME]... names of the checks: all, or these and the first
#   guest.sh --check NAME     one, in a shell of its own
set -euo pipefail

# What everything else builds on.
first=(
  init_says_what_the_collector_needs_and_it_becomes_active
  an_agent_that_is_not_enrolled_is_not_started_again
  an_enrolled_agent_becomes_active_and_connects
)
checks=(
  the_unit_gives_the_agent_what_it_says_and_no_more
  the_unit_gives_the_collector_no_power
  a_program_in_dev_shm_is_found
  a_deleted_program_is_found_with_its_digest
  a_listener_is_found
  a_listener_in_another_network_namespace_is_found
  a_packet_socket_is_shown_with_the_length_of_its_filter
  an_event_tells_of_a_program_long_before_the_next_scan
  a_listener_of_sctp_is_found
  a_connection_of_sctp_is_found
  sctp_in_another_network_namespace_is_found
  a_process_that_hangs_its_readers_does_not_hang_the_agent
  a_reload_reads_the_configuration_again
  a_wrong_configuration_stops_no_agent_that_runs
  a_restart_reports_nothing_twice
  a_stopped_agent_is_killed_by_the_watchdog_and_reports_nothing_twice
  a_restart_of_the_collector_loses_and_repeats_nothing
  a_process_over_a_limit_is_killed_as_the_host_asks
  a_script_runs_as_confined_as_the_agent
  a_thousand_processes_and_500_rules_fit_into_the_unit
  neither_unit_was_denied_anything
  both_units_stop_in_time
)

here=$(dirname "$(readlink -f "$0")")
state=/run/procwarden-check
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
payload=(python3 "$here/payload.py")
agent=procwarden-agent collector=procwarden-collector

# === words of the checks ===

fail() { echo "$*"; exit 1; }

# eventually SECONDS COMMAND...: waits until it succeeds; the time is what a
# slow machine may need, not what is checked.
eventually() {
  local seconds=$1 end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "not within $seconds s: $*"
    sleep 0.5
  done
}

# start COMMAND...: leaves a process behind, as $pid.
start() { "$@" </dev/null >>"$state/payloads.log" 2>&1 & pid=$!; }

property() { systemctl show -P "$2" "$1"; }
is() { [ "$(property "$1" "$2")" = "$3" ] || fail "$1: $2 is $(property "$1" "$2"), not $3"; }
main_pid() { property "$1" MainPID; }
cgroup() { echo "/sys/fs/cgroup$(property "$1" ControlGroup)"; }
information() { echo "info $*" >>"$state/information"; }

agent_says() { procwarden-agent status --json 2>/dev/null | jq -e "$1" >/dev/null 2>&1; }
scanned_again() {
  local scans
  scans=$(procwarden-agent status --json | jq .scans)
  eventually 900 agent_says ".connected and .scans >= $((scans + ${1:-2}))"
}
# publish TEXT: settings of the policy `default`, and the agent runs them.
publish() {
  printf '%b' "$1" >"$state/settings.toml"
  procwarden policy set default "$state/settings.toml" --comment "for a check"
  eventually 60 procwarden policy status default
}
fast='[scan]\nmin_age_secs = 3\ninterval_secs = 3\n'

findings_of() { procwarden findings list --json --limit 10000 | jq -c "select(.pid == $1)"; }
# shows PID INDICATOR [TEXT]: its finding has the indicator, with this evidence.
shows() {
  findings_of "$1" | jq -es --arg id "$2" --arg text "${3:-}" \
    'any(.[].indicators[]; .id == $id and (.evidence | contains($text)))' >/dev/null
}
found() { eventually 240 shows "$@"; }
did() { findings_of "$1" | jq -es "any(.[].actions[]?; .what == \"$2\" and (.result | test(\"$3\")))" >/dev/null; }
metric() {
  python3 -c 'import urllib.request; print(urllib.request.urlopen("http://127.0.0.1:9469/metrics").read().decode())' |
    awk -v name="$1" '$1 == name { print int($2); n = 1 } END { exit !n }'
}
# What the collector has been told: nothing changes it but reports and ends.
told() { metric procwarden_events_received_total; }

# === the checks ===

init_says_what_the_collector_needs_and_it_becomes_active() {
  install -m 755 "$here"/bin/* /usr/bin/
  install -m 644 "$here"/systemd/*.service /etc/systemd/system/
  systemctl daemon-reload
  useradd --system procwarden
  procwarden-collector init --data-dir /var/lib/procwarden/collector --name localhost --config /etc/procwarden/collector.toml
  chown -R procwarden: /var/lib/procwarden
  cat >>/etc/procwarden/collector.toml <<'TOML'
[mail]
transport = "file"
from = "procwarden@localhost"
to = ["root@localhost"]
file.dir = "/var/lib/procwarden/mail"
TOML
  sed -i 's/^#metrics = /metrics = /' /etc/procwarden/collector.toml
  install -d -o procwarden -m 700 /var/lib/procwarden/mail
  systemctl enable --now $collector
  is $collector ActiveState active
  procwarden status
}

an_agent_that_is_not_enrolled_is_not_started_again() {
  # A tenth of an emulated processor is little for systemd's own preparations.
  mkdir -p /etc/systemd/system/$agent.service.d
  printf '[Service]\nTimeoutStartSec=600\n' >/etc/systemd/system/$agent.service.d/patience.conf
  systemctl daemon-reload
  ! systemctl start $agent || fail "it started"
  sleep 12
  is $agent ActiveState failed
  is $agent ExecMainStatus 64
  is $agent NRestarts 0
}

an_enrolled_agent_becomes_active_and_connects() {
  procwarden token create >"$state/token"
  procwarden-agent enroll --token-file "$state/token"
  systemctl enable --now $agent
  is $agent ActiveState active
  eventually 60 agent_says '.connected and .scans >= 1'
  agent_says .events_on || fail "events are off: $(procwarden-agent status)"
  # An emulated machine is slow: that scans come less often is right there.
  agent_says '[.notes[] | select(contains("they come every") | not)] == []' || fail "$(procwarden-agent status --json | jq -c .notes)"
  # The collector is a listener of an account as well.
  echo 'exe:/usr/bin/procwarden-collector' >"$state/rules.pignore"
  procwarden policy set default "$state/rules.pignore" --comment "ours"
  publish "$fast"
  procwarden-agent status
  procwarden hosts list
}

the_unit_gives_the_agent_what_it_says_and_no_more() {
  local group status
  group=$(cgroup $agent) status=/proc/$(main_pid $agent)/status
  [ "$(cat "$group/memory.max")" = 134217728 ]
  [ "$(cat "$group/cpu.max")" = "10000 100000" ]
  [ "$(cat "$group/pids.max")" = 64 ]
  # kill 5, dac_read_search 2, net_admin 12, sys_ptrace 19
  grep -qx 'CapEff:.0000000000081024' "$status"
  grep -qx 'CapBnd:.0000000000081024' "$status"
  grep -qx 'NoNewPrivs:.1' "$status"
  grep -qx 'Seccomp:.2' "$status"
  [ "$(cat "/proc/$(main_pid $agent)/oom_score_adj")" = -500 ]
  ! nsenter --target "$(main_pid $agent)" --mount touch /etc/written 2>/dev/null || fail "/etc can be written"
  information "$(systemd-analyze security $agent | tail -n 1)"
}

the_unit_gives_the_collector_no_power() {
  local status
  status=/proc/$(main_pid $collector)/status
  grep -qx 'CapEff:.0000000000000000' "$status"
  grep -qx 'NoNewPrivs:.1' "$status"
  grep -qx 'Seccomp:.2' "$status"
  grep -q "^Uid:.$(id -u procwarden)" "$status"
  information "$(systemd-analyze security $collector | tail -n 1)"
}

a_program_in_dev_shm_is_found() {
  install -m 755 /bin/sleep /dev/shm/payload
  start "${nobody[@]}" /dev/shm/payload 36000
  found "$pid" exe-in-volatile-dir /dev/shm/payload
}

a_deleted_program_is_found_with_its_digest() {
  local digest
  install -m 755 /bin/sleep /var/tmp/gone
  start "${nobody[@]}" /var/tmp/gone 36000
  eventually 30 test "/proc/$pid/exe" -ef /var/tmp/gone
  digest=$(sha256sum </var/tmp/gone | cut -d' ' -f1)
  rm /var/tmp/gone
  found "$pid" exe-deleted
  [ "$(findings_of "$pid" | jq -r .exe_sha256)" = "$digest" ] || fail "$(findings_of "$pid")"
}

a_listener_is_found() {
  start "${nobody[@]}" "${payload[@]}" listen 0.0.0.0 39001
  found "$pid" unexpected-listener "tcp 0.0.0.0:39001"
}

elsewhere() { start unshare --net sh -c 'ip link set lo up; exec "$@"' - "${nobody[@]}" "${payload[@]}" "$@"; }

a_listener_in_another_network_namespace_is_found() {
  elsewhere listen 0.0.0.0 39002
  found "$pid" unexpected-listener "tcp 0.0.0.0:39002"
}

a_packet_socket_is_shown_with_the_length_of_its_filter() {
  install -m 755 /usr/bin/python3 /dev/shm/sniffer
  start /dev/shm/sniffer "$here/payload.py" --uid 65534 packet
  found "$pid" exe-in-volatile-dir
  procwarden findings show "$(findings_of "$pid" | jq -r .id)" >"$state/sniffer"
  grep -q 'packet .* filter of 2 instructions' "$state/sniffer" || fail "$(grep -A3 network "$state/sniffer")"
}

an_event_tells_of_a_program_long_before_the_next_scan() {
  publish '[scan]\nmin_age_secs = 3\ninterval_secs = 600\n'
  scanned_again 0
  start "${nobody[@]}" "${payload[@]}" memfd
  found "$pid" exe-memfd
  publish "$fast"
}

# The kernel's own words go to the console: they are what unit tests hold.
sctp_tables() { grep -r . /proc/net/sctp/eps /proc/net/sctp/assocs >/dev/console; }

a_listener_of_sctp_is_found() {
  modprobe sctp
  start "${nobody[@]}" "${payload[@]}" sctp-listen 0.0.0.0 39010
  found "$pid" unexpected-listener "sctp 0.0.0.0:39010"
  start "${nobody[@]}" "${payload[@]}" sctp-listen :: 39011
  found "$pid" unexpected-listener "sctp6 [::]:39011"
  sctp_tables
}

a_connection_of_sctp_is_found() {
  modprobe sctp
  start "${nobody[@]}" "${payload[@]}" sctp-listen 127.0.0.1 39012
  eventually 30 grep -q 39012 /proc/net/sctp/eps
  local listener=$pid
  start "${nobody[@]}" "${payload[@]}" sctp-connect 127.0.0.1 39012
  found "$pid" network-connection "sctp 127.0.0.1:39012"
  found "$listener" network-connection "sctp 127.0.0.1:"
  start "${nobody[@]}" "${payload[@]}" sctp-listen ::1 39013
  eventually 30 grep -q 39013 /proc/net/sctp/eps
  start "${nobody[@]}" "${payload[@]}" sctp-connect ::1 39013
  found "$pid" network-connection "sctp6 [::1]:39013"
  sctp_tables
}

sctp_in_another_network_namespace_is_found() {
  modprobe sctp
  elsewhere sctp-listen 0.0.0.0 39014
  found "$pid" unexpected-listener "sctp 0.0.0.0:39014"
}

a_process_that_hangs_its_readers_does_not_hang_the_agent() {
  local hung server
  modprobe fuse
  start "${nobody[@]}" "${payload[@]}" hang
  hung=$pid
  eventually 120 grep -q "^$hung hangs" "$state/payloads.log"
  server=$(awk -v pid="$hung" '$1 == pid { print $3 }' "$state/payloads.log")
  eventually 120 agent_says '[.notes[] | select(contains("'"$hung"'"))] != []'
  scanned_again 3
  install -m 755 /bin/sleep /dev/shm/beside
  start "${nobody[@]}" /dev/shm/beside 36000
  found "$pid" exe-in-volatile-dir
  # Until it ends, whatever lists arguments hangs: ps, pkill.
  kill -9 "$server" "$hung"
}

logged() { journalctl -q -b -u "$1" --grep "$2" >/dev/null; }

a_reload_reads_the_configuration_again() {
  mkdir -p /etc/procwarden
  printf '[limits]\ncpu = 9\n' >/etc/procwarden/agent.toml
  systemctl reload $agent
  eventually 30 logged $agent 'configuration was read again'
  systemctl reload $collector
  eventually 30 logged $collector 'configuration was read again'
  is $agent ActiveState active
  is $collector ActiveState active
}

a_wrong_configuration_stops_no_agent_that_runs() {
  local before
  before=$(main_pid $agent)
  echo 'no configuration' >/etc/procwarden/agent.toml
  systemctl reload $agent
  eventually 30 logged $agent 'was not read again'
  sleep 10
  [ "$(main_pid $agent)" = "$before" ] || fail "another agent runs"
  # At a start it is refused, once.
  ! systemctl restart $agent || fail "it started"
  is $agent ExecMainStatus 64
  rm /etc/procwarden/agent.toml
  systemctl start $agent
  eventually 60 agent_says '.connected and .scans >= 1'
}

# What was there is still known, and told to nobody again.
repeats_nothing() {
  local before=$1
  eventually 300 agent_says '.connected and .scans >= 3 and .spool_events == 0'
  [ "$(told)" = "$before" ] || fail "$(($(told) - before)) events again"
}

a_restart_reports_nothing_twice() {
  local before
  scanned_again 3
  before=$(told)
  [ "$before" -gt 0 ]
  systemctl restart $agent
  repeats_nothing "$before"
}

a_stopped_agent_is_killed_by_the_watchdog_and_reports_nothing_twice() {
  local dropin=/etc/systemd/system/$agent.service.d before old
  printf '[Service]\nWatchdogSec=6\n' >"$dropin/watchdog.conf"
  systemctl daemon-reload
  systemctl restart $agent
  scanned_again 3
  sleep 15
  is $agent NRestarts 0
  before=$(told) old=$(main_pid $agent)
  kill -STOP "$old"
  eventually 120 logged $agent 'Watchdog timeout'
  eventually 120 systemctl -q is-active $agent
  is $agent NRestarts 1
  [ "$(main_pid $agent)" != "$old" ]
  repeats_nothing "$before"
  rm "$dropin/watchdog.conf"
  systemctl daemon-reload
  systemctl restart $agent
}

a_restart_of_the_collector_loses_and_repeats_nothing() {
  local before
  before=$(procwarden findings list --json --limit 10000 | wc -l)
  systemctl restart $collector
  eventually 90 agent_says .connected
  install -m 755 /bin/sleep /dev/shm/later
  start "${nobody[@]}" /dev/shm/later 36000
  found "$pid" exe-in-volatile-dir
  [ "$(procwarden findings list --json --limit 10000 | wc -l)" = $((before + 1)) ]
  [ "$(told)" = 1 ] || fail "$(told) events"
}

act() {
  mkdir -p /etc/procwarden
  printf '[actions]\n%b' "$1" >/etc/procwarden/agent.toml
  systemctl restart $agent
  eventually 60 agent_says '.connected and .scans >= 1'
}

a_process_over_a_limit_is_killed_as_the_host_asks() {
  act 'kill_over_limit = true\n'
  publish "${fast}[limits]\nprocess_vsz_mb = 500000\n"
  # Limits are not for nobody, who runs programs for everybody.
  start setpriv --reuid=61417 --regid=61417 --clear-groups "${payload[@]}" vast
  eventually 240 did "$pid" kill_over_limit '^killed'
  ! kill -0 "$pid" 2>/dev/null || fail "it lives"
  publish "${fast}[limits]\nprocess_vsz_mb = 0\n"
}

a_script_runs_as_confined_as_the_agent() {
  cat >/usr/local/sbin/on-deleted <<'SCRIPT'
#!/bin/sh
touch /etc/written 2>/dev/null && echo wrote /etc
chown nobody /var/lib/procwarden-agent 2>/dev/null && echo gave a file away
echo "ran for $2"
SCRIPT
  chmod 755 /usr/local/sbin/on-deleted
  act 'on_deleted = "/usr/local/sbin/on-deleted"\n'
  install -m 755 /bin/sleep /var/tmp/gone-too
  start "${nobody[@]}" /var/tmp/gone-too 36000
  eventually 30 test "/proc/$pid/exe" -ef /var/tmp/gone-too
  rm /var/tmp/gone-too
  eventually 240 did "$pid" on_deleted .
  did "$pid" on_deleted "exit code 0, said: ran for $pid\$" || fail "$(findings_of "$pid" | jq -c .actions)"
}

a_thousand_processes_and_500_rules_fit_into_the_unit() {
  local group n
  for n in $(seq 250); do
    printf 'exe:/opt/application/bin/program-%s\npexe:/opt/application-%s/.*\\.bin\n' "$n" "$n"
  done >>"$state/rules.pignore"
  procwarden policy set default "$state/rules.pignore" --comment "500 rules"
  rm -f /etc/procwarden/agent.toml
  systemctl restart $agent
  for n in $(seq 1000); do start "${nobody[@]}" sleep 36000; done
  eventually 300 agent_says '.connected and .processes >= 1000'
  scanned_again 10
  procwarden policy status default
  group=$(cgroup $agent)
  information "agent with $(procwarden-agent status --json | jq .processes) processes and 500 rules:" \
    "memory.current $(($(cat "$group/memory.current") / 1024)) KiB," \
    "memory.peak $(($(cat "$group/memory.peak") / 1024)) KiB," \
    "$(grep VmRSS "/proc/$(main_pid $agent)/status" | tr -s '\t ' ' ')," \
    "of a processor lately $(procwarden-agent status --json | jq .cpu_recent_ppm) ppm with a scan every 3 s"
  grep -q '^oom_kill 0$' "$group/memory.events"
  pkill -x -U 65534 sleep
}

neither_unit_was_denied_anything() {
  local denied
  # clone3 (435) has no answer where namespaces are restricted: the C library
  # goes on with clone. Nor has openat2 (437) with RestrictSUIDSGID: the agent
  # goes on with fstatat.
  denied=$(journalctl -q -b -o cat --grep 'type=1326|SECCOMP' | grep 'exe="/usr/bin/procwarden' |
    grep -o 'comm=.* syscall=[0-9]*' | sort | uniq -c || true)
  # Where not even these are told, nothing is.
  grep -qE 'syscall=43[57]$' <<<"$denied" || fail "no denied system call is told: is the kernel's audit on?"
  denied=$(grep -vE 'syscall=43[57]$' <<<"$denied" || true)
  [ -z "$denied" ] || fail "$denied"
  denied=$(journalctl -q -b -o cat -u $agent -u $collector --grep 'not permitted|ermission denied|status=31/SYS' || true)
  [ -z "$denied" ] || fail "$denied"
}

both_units_stop_in_time() {
  local unit
  for unit in $agent $collector; do
    systemctl stop "$unit"
    is "$unit" ActiveState inactive
    is "$unit" Result success
    is "$unit" ExecMainStatus 0
  done
}

# === the run ===

# one NAME: the check, and a line about it.
one() {
  local log=$state/$1.log
  : >"$state/information"
  if "$here/guest.sh" --check "$1" >"$log" 2>&1; then
    echo "ok $1"
  else
    echo "FAILED $1: $(tail -n 3 "$log" | tr '\n' ' ')"
    cat "$state/payloads.log" >>"$log" || true
    failed=$((failed + 1))
    journalctl -q -n 40 -o short-monotonic -u $agent -u $collector >>"$log"
  fi
  cat "$state/information"
  { echo "=== $1"; cat "$log"; } >/dev/console
}

all() {
  local names failed=0 name
  mkdir -p "$state"
  mapfile -t names <"$here/checks"
  for name in "${names[@]}"; do
    one "$name"
    # Without these nothing else says anything.
    if [ "$failed" != 0 ] && [[ " ${first[*]} " == *" $name "* ]]; then break; fi
  done
  journalctl -b -o short-monotonic -u $agent -u $collector >/dev/console
  if [ "$failed" = 0 ]; then
    echo "done: all ${#names[@]} checks are ok"
  else
    echo "done: $failed of ${#names[@]} checks failed"
  fi
}

case ${1:-} in
  --list)
    shift
    if [ $# = 0 ]; then printf '%s\n' "${first[@]}" "${checks[@]}"; exit; fi
    printf '%s\n' "${first[@]}"
    for name in "$@"; do
      printf '%s\n' "${checks[@]}" | grep -x -- "$name"
    done
    ;;
  --check)
    trap 'echo "line $LINENO: $BASH_COMMAND"' ERR
    set -E
    "$2"
    ;;
  *) all ;;
esac
