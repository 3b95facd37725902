#!/usr/bin/env bash
# Collector and agent as services of a real systemd on a real kernel: boots
# Debian 12 in QEMU without a network, installs the programs and the shipped
# units there as README says, and lets guest.sh check them. Prints a line per
# check; succeeds only if every check said ok and the guest came to its end.
#
#   sudo tests/vm/run.sh [--bin DIR] [--cache DIR] [--only NAME]...
#
#   --bin DIR    the programs (target/release; built there if it is not given)
#   --cache DIR  where the system is kept for the next run (target/vm)
#   --only NAME  this check alone, and those that it builds on
#
# Needs root, qemu-system-x86, debootstrap, e2fsprogs, and Debian's archive for
# the first run. Where KVM does not work, QEMU does everything itself, slowly;
# PROCWARDEN_VM_TIMEOUT (3000) is how many seconds a run may take.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=tests/vm
target=${CARGO_TARGET_DIR:-target}

usage() { sed -n '2,16s/^# \{0,1\}//p' "$here/run.sh"; exit 64; }
bin='' cache=$target/vm only=()
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case $1 in
    --bin) bin=$2 ;;
    --cache) cache=$2 ;;
    --only) only+=("$2") ;;
    *) usage ;;
  esac
  shift 2
done

# --- what a machine may lack -------------------------------------------------
lacking=0
lacks() { echo "run.sh: $1 is missing; install it with: apt-get install $2" >&2; lacking=1; }
command -v qemu-system-x86_64 >/dev/null || lacks qemu-system-x86_64 qemu-system-x86
command -v debootstrap >/dev/null || lacks debootstrap debootstrap
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || lacks "Debian's keyring" debian-archive-keyring
command -v mkfs.ext4 >/dev/null || lacks mkfs.ext4 e2fsprogs
[ "$(id -u)" = 0 ] || { echo "run.sh: only root can make a system of other accounts' files" >&2; lacking=1; }
[ "$lacking" = 0 ] || exit 1
names=$("$here/guest.sh" --list "${only[@]}") || { echo "run.sh: --only names no check" >&2; exit 64; }
mapfile -t expected <<<"$names"

# --- the programs ------------------------------------------------------------
if [ -z "$bin" ]; then
  cargo build --release --locked --quiet -p procwarden-agent -p procwarden-collector
  bin=$target/release
fi

# --- the system: made once, never written to ---------------------------------
packages=systemd,systemd-sysv,dbus,linux-image-amd64,iproute2,procps,python3,jq
mkdir -p "$cache"
system=$cache/system.img
recipe=$(sha256sum "$here/procwarden-check.service" && sed -n '/^packages=/,/recipe"$/p' "$here/run.sh")
if [ ! -e "$system" ] || [ "$recipe" != "$(cat "$cache/recipe" 2>/dev/null)" ]; then
  echo "Making a Debian 12 in $cache (minutes) ..."
  rm -rf "$cache/root" "$cache/recipe"
  # What debootstrap mounts goes with its namespace, however it ends.
  unshare --mount --propagation private debootstrap --variant=minbase --force-check-gpg \
    --include="$packages" bookworm "$cache/root" http://deb.debian.org/debian >"$cache/debootstrap.log" ||
    { echo "run.sh: debootstrap failed; the end of $cache/debootstrap.log:" >&2
      tail -n 20 "$cache/debootstrap.log" >&2; exit 1; }
  rm -rf "$cache"/root/var/cache/apt/archives/*.deb "$cache"/root/var/lib/apt/lists/*
  : >"$cache/root/etc/machine-id"
  echo procwarden-guest >"$cache/root/etc/hostname"
  echo '127.0.0.1 localhost procwarden-guest' >"$cache/root/etc/hosts"
  install -m 644 "$here/procwarden-check.service" "$cache/root/etc/systemd/system/"
  # A system call that a unit's filter denies is a line of the journal.
  mkdir -p "$cache/root/etc/systemd/system.conf.d"
  printf '[Manager]\nManagerEnvironment=SYSTEMD_LOG_SECCOMP=1\n' >"$cache/root/etc/systemd/system.conf.d/seccomp.conf"
  ln -s ../procwarden-check.service "$cache/root/etc/systemd/system/multi-user.target.wants/"
  cp -L "$cache/root/vmlinuz" "$cache/root/initrd.img" "$cache/"
  rm -f "$system"
  mkfs.ext4 -q -d "$cache/root" "$system" 2G
  rm -rf "$cache/root"
  printf '%s\n' "$recipe" >"$cache/recipe"
fi

# --- what is handed in -------------------------------------------------------
home=$(mktemp -d "$cache/run.XXXXXX")
qemu='' shown=''
# shellcheck disable=SC2329 # called by the trap
finish() {
  trap - EXIT INT TERM
  for pid in $qemu $shown; do kill "$pid" 2>/dev/null || true; done
  for pid in $qemu $shown; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$home/input" "$home/input.img"
}
trap finish EXIT
trap 'exit 1' INT TERM
mkdir -p "$home/input/bin"
install -m 755 "$bin/procwarden" "$bin/procwarden-agent" "$bin/procwarden-collector" "$home/input/bin/"
cp -r deploy/systemd deploy/config "$here/guest.sh" "$here/payload.py" "$home/input/"
printf '%s\n' "${expected[@]}" >"$home/input/checks"
mkfs.ext4 -q -d "$home/input" "$home/input.img" 256M

# --- KVM, if it works: what is there may still hang or fail -------------------
# shellcheck disable=SC2054 # QEMU's own commas
machine=(qemu-system-x86_64 -cpu max,-arch-capabilities -smp 2 -m 4096 -nodefaults -display none -nic none -no-reboot
  -kernel "$cache/vmlinuz" -initrd "$cache/initrd.img")
accel=(-accel "tcg,thread=multi")
if [ -w /dev/kvm ]; then
  timeout 20 "${machine[@]}" -accel kvm -append "console=ttyS0 panic=-1 root=none rootwait=0" \
    -serial "file:$home/console" </dev/null >/dev/null 2>&1 || true
  if grep -aq "Linux version" "$home/console"; then accel=(-accel kvm); fi
fi

# --- the run -----------------------------------------------------------------
# None of the lines about denied system calls may be lost.
audit="audit=1 audit_backlog_limit=8192 sysctl.kernel.printk_ratelimit=0"
# The first serial line is the kernel's console, the second what guest.sh says.
: >"$home/said"
begin=$(date +%s)
timeout "${PROCWARDEN_VM_TIMEOUT:-3000}" "${machine[@]}" "${accel[@]}" \
  -append "root=/dev/vda rw console=ttyS0 panic=-1 loglevel=4 $audit" \
  -drive "file=$system,format=raw,if=virtio,snapshot=on" \
  -drive "file=$home/input.img,format=raw,if=virtio,snapshot=on" \
  -serial "file:$home/console" -serial "file:$home/said" </dev/null &
qemu=$!
tail -f -n +1 --pid="$qemu" "$home/said" &
shown=$!
status=0
wait "$qemu" || status=$?
wait "$shown" || true
qemu='' shown=''

# --- the judgement -----------------------------------------------------------
failed=0
complain() { echo "run.sh: $1" >&2; failed=1; }
tr -d '\r' <"$home/said" >"$home/lines"
[ "$status" = 0 ] || complain "QEMU ended with $status (124 is too late)"
for name in "${expected[@]}"; do
  grep -qx "ok $name" "$home/lines" || complain "$name is not ok"
done
grep -qx "done: all ${#expected[@]} checks are ok" "$home/lines" || complain "the guest did not come to a good end"
echo "$(($(date +%s) - begin)) s; the guest's console is $home/console"
exit "$failed"
