#!/bin/sh
# The guest's side of `cargo xtask vm cuts`, beside cuts.rs: looks at the store after the last cut, then changes it until
# the machine is killed. Says on stdout what is acknowledged: "cuts: + NAME" behind the command that made an image,
# "cuts: - NAME" before one that removes it.
# usage: cuts.sh ROUND [NAME…]   images that must be there
set -eu
round=$1
shift
disk=/dev/vdd mount=/mnt/cuts
store=$mount/onggi

o() { onggi --root "$store" --runroot /run/cuts "$@"; }
say() { echo "cuts: $*"; }
fail() {
    say "LOST $*"
    exit 1
}

mkdir -p $mount
# Replays the journal.
mount $disk $mount

o images --format '{{.Repository}}' >/tmp/images || fail "images cannot be listed"
for name; do
    grep -qx "$name" /tmp/images || fail "the image $name, of $(tr '\n' ' ' </tmp/images)"
done
o system check >/tmp/check 2>&1 || fail "system check: $(cat /tmp/check)"
empty=$(find $store/layers $store/blobs/sha256 -type f -size 0 2>/dev/null || true)
[ -z "$empty" ] || fail "files without content: $empty"
o ps -aq | while read -r container; do
    o rm -f "$container" >/dev/null || fail "the container $container cannot be removed"
done
say looked "$(wc -l </tmp/images) images"

mkdir -p /tmp/tree/d
n=0
say begin
while :; do
    n=$((n + 1)) id=$round-$((n))
    for file in 1 2 3 4 5 6 7 8 9; do seq $n $((n + file * 400)) >/tmp/tree/d/$file; done
    tar -C /tmp/tree -cf /tmp/layer.tar .
    o import /tmp/layer.tar "a$id:1" >/dev/null
    say + "a$id"
    o create --name "c$id" "a$id:1" x >/dev/null
    for upper in "$store"/containers/*/upper; do seq $n 9000 >"$upper/new"; done
    o commit "c$id" "b$id:1" >/dev/null
    say + "b$id"
    o save -o /tmp/saved.tar "b$id:1"
    o rm "c$id" >/dev/null
    say - "a$id"
    o rmi "a$id:1" >/dev/null
    say - "b$id"
    o rmi "b$id:1" >/dev/null
    o load -q -i /tmp/saved.tar >/dev/null
    say + "b$id"
    if [ $((n % 6)) = 0 ]; then
        say - "*"
        o system prune -af >/dev/null
    fi
done
