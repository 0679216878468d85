#!/bin/sh
# The guest's side of `cargo xtask vm cuts`, beside mod.rs. Prepares a registry, waits for an order, looks at the store
# after the last cut, then changes it, comes to the operation that is to be hit, and waits for the machine's end.
#
# /dev/vdd  the disk that is cut; the store is on it
# /dev/vde  the first 16 KiB: the order, "go SEED TIME TARGET TOUR SWEEP [NAME=KIND…]": the operation to be hit, whether
#           each is done once before ("tour"), whether all is removed ("sweep"), images that must be there; then the log,
#           a line in each sector, written past the guest's cache: what is in it was said before the machine was killed
#             > OPERATION  begins
#             ! OPERATION  so does the one that is to be hit
#             < OPERATION  has succeeded
#             + NAME KIND  the image is acknowledged
#             - NAME       its removal begins; "*" means all
# KIND tells the content: a tree that was prepared here, and "+N" for each file new-N with the numbers from N to 9000.
set -eu
disk=/dev/vdd orders=/dev/vde mount=/mnt/cuts here=/run/cuts registry=127.0.0.1:5000
store=$mount/onggi

o() { onggi --root "$store" --runroot $here/run "$@"; }
tell() { echo "cuts: $*"; }
# A process of its own writes: one that had to be started for each line would take longer than a short command.
log() {
    echo "$*" >&3
    read -r _ <&4
}
scribe() {
    mkfifo $here/say $here/heard
    perl -e 'use Fcntl; sysopen my $d, shift, O_WRONLY | O_SYNC or die; sysseek $d, 16384, 0; $| = 1;
        while (<STDIN>) { chomp; syswrite($d, sprintf "%-511s\n", $_) == 512 or die; print "\n" }' \
        $orders <$here/say >$here/heard &
    exec 3>$here/say 4<$here/heard
}
fail() {
    tell "LOST $*"
    exit 1
}
# Runs one command on the store, which must succeed.
must() { o "$@" >$here/said 2>&1 || fail "onggi $*: $(cat $here/said)"; }

# --- before the machine's state is kept ---

# A tree of files, none empty, and their sums.
tree() {
    mkdir -p $here/"$1"/d $here/"$1"/e
    for file in $(seq 25); do
        seq -f "$1 $file %.0f" $((file * 60)) >$here/"$1"/d/"$file"
        seq -f "$1 e$file %.0f" $((3000 - file * 60)) >$here/"$1"/e/"$file"
    done
    (cd $here/"$1" && find . -type f -exec sha256sum {} +) >$here/"$1".sums
}

prepare() {
    mkdir -p $mount $here
    modprobe -a ext4 xfs overlay
    cat >$here/registry.yml <<END
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $here/registry } }
http: { addr: '$registry' }
END
    /payload/tree/usr/bin/docker-registry serve $here/registry.yml >/dev/null 2>$here/registry.log &
    for name in p1 p2 p3 l a; do tree $name; done
    m() { onggi --root $here/maker --runroot $here/maker-run "$@" >$here/said 2>&1 || fail "onggi $*: $(cat $here/said)"; }
    for name in p1 p2 p3 l; do
        tar -C $here/$name -cf $here/one.tar d
        m import $here/one.tar one:1
        m create --name two one:1 x
        cp -a $here/$name/e $here/maker/containers/*/upper/
        m commit two $registry/$name:1
        m rm two
        [ $name = l ] || m push -q $registry/$name:1
    done
    m tag $registry/l:1 l:1
    m save -o $here/l.tar l:1
    rm -rf $here/maker $here/maker-run $here/one.tar
}

# --- the look after a cut ---

whole() {
    name=${1%%=*} kind=${1#*=} count=0
    at=$(o image mount "$name:1" 2>&1) || fail "image mount $name: $at"
    (cd "$at" && sha256sum --quiet -c $here/"${kind%%+*}".sums) >$here/said 2>&1 || fail "content of $1: $(cat $here/said)"
    for n in $(echo "$kind" | tr + '\n' | sed 1d | sort -u); do
        seq "$n" 9000 | cmp -s - "$at/new-$n" || fail "content of $1: new-$n"
        count=$((count + 1))
    done
    [ "$(find "$at" -type f | wc -l)" = $((50 + count)) ] || fail "content of $1: $(find "$at" -type f | wc -l) files"
    must image unmount "$name:1"
}

look() {
    # Replays the journal. The kept state may have looked for partitions on a disk that was empty then.
    blockdev --flushbufs $disk
    mount $disk $mount
    o images --format '{{.Repository}}' >$here/images || fail "images cannot be listed"
    for image; do
        grep -qx "${image%%=*}" $here/images || fail "the image $image, of $(tr '\n' ' ' <$here/images)"
    done
    # A container is made without waiting for the disk: one whose files did not reach it is told, and can only be removed.
    o system check >$here/check 2>&1 || {
        for gone in $(sed -n 's/^gone: container \([^:]*\): its files are gone.*/\1/p' $here/check); do must rm "$gone"; done
        o system check >$here/check 2>&1 || fail "system check: $(cat $here/check)"
    }
    for image; do whole "$image"; done
    if [ -d $store/layers ]; then
        empty=$(find $store/layers $store/blobs/sha256 -type f -size 0)
        [ -z "$empty" ] || fail "files without content: $empty"
        odd=$(cd $store/blobs/sha256 && find . -type f -exec sha256sum {} + | awk '$2 != "./" $1')
        [ -z "$odd" ] || fail "blobs that are not what they are called: $odd"
    fi
    o ps -aq >$here/containers || fail "containers cannot be listed"
    while read -r container; do must rm -f "$container"; done <$here/containers
    tell looked "$# images, $(wc -l <$here/images) there, $(wc -l <$here/containers) containers"
}

# Nothing may be left when everything is removed.
sweep() {
    must system prune -af
    left=$(find $store/layers $store/tmp $store/blobs/sha256 $store/containers -mindepth 1)
    [ -z "$left" ] || fail "nobody owns: $left"
}

# --- the changes ---

# The images and containers that are there, as NAME=KIND.
images='' containers=''
pick() {
    seed=$(((seed * 1103515245 + 12345) & 0x7fffffff))
    picked=$(((seed >> 12) % $1))
}
# One of a list, or nothing.
one() {
    some=''
    [ $# -eq 0 ] && return
    pick $#
    shift $picked
    some=$1
}
# The list without one of its words, and without spaces around.
without() { echo $(echo " $2 " | sed "s| $1 | |"); }
made() {
    log + "$1" "$2"
    images="$(without "$1=$2" "$images") $1=$2"
}
# An operation: its name for the log, and the command.
mark='>'
run() {
    name=$1
    shift
    log "$mark $name"
    must "$@"
    log "< $name"
}

# What there is besides beforehand, so that nothing but the operation itself is between its begin and its end.
needs() {
    case $1 in
    create | tag | rmi) [ -n "$images" ] || change import ;;
    commit | rm) [ -n "$containers" ] || { needs create && change create; } ;;
    esac
    if [ "$1" = rmi ]; then
        while [ -n "$containers" ]; do change rm; done
    fi
}
archive() {
    seq $n 9000 >$here/a/new-$n
    tar -C $here/a -cf $here/a.tar .
    rm $here/a/new-$n
}
change() {
    n=$((n + 1)) id=$start-$n
    case $1 in
    pull)
        one p1 p2 p3
        run pull pull -q $registry/$some:1 && made $registry/$some $some
        ;;
    pulls)
        one p1 p2 p3
        archive
        log "$mark pulls"
        (must pull -q $registry/$some:1) &
        must import $here/a.tar "a$id:1" && made "a$id" "a+$n"
        wait $! || exit 1
        log "< pulls"
        made $registry/$some $some
        ;;
    import)
        archive
        run import import $here/a.tar "a$id:1" && made "a$id" "a+$n"
        ;;
    load) run load load -q -i $here/l.tar && made l l ;;
    create)
        one $images
        run create create --name "c$id" "${some%%=*}:1" x
        containers="$containers $(cat $here/said)=${some#*=}"
        ;;
    commit)
        one $containers
        seq $n 9000 >"$store/containers/${some%%=*}/upper/new-$n"
        run commit commit "${some%%=*}" "b$id:1" && made "b$id" "${some#*=}+$n"
        # The next commit has that file too.
        containers="$(without "$some" "$containers") $some+$n"
        ;;
    tag)
        one $images
        run tag tag "${some%%=*}:1" "t$id:1" && made "t$id" "${some#*=}"
        ;;
    rm)
        one $containers
        run rm rm "${some%%=*}"
        containers=$(without "$some" "$containers")
        ;;
    rmi)
        one $images
        log - "${some%%=*}"
        run rmi rmi "${some%%=*}:1"
        images=$(without "$some" "$images")
        ;;
    prune)
        log - "*"
        run prune system prune -af
        images='' containers=''
        ;;
    *) fail "no such operation: $1" ;;
    esac
}

# Some changes, among them each at its time those that make the store smaller.
some_changes() {
    pick 3
    for _ in $(seq $picked); do
        set -- pull pulls import load create commit commit tag rm rmi prune
        [ "$(echo $images | wc -w)" -lt 6 ] || set -- rmi rmi prune commit
        one "$@"
        chosen=$some
        needs $chosen
        change $chosen
    done
}

prepare
scribe
tell ready
while :; do
    order=$(dd if=$orders bs=16384 count=1 iflag=direct 2>/dev/null | tr -d '\0')
    case $order in go*) break ;; esac
    sleep 0.3
done
set -- $order
seed=$2 start=$2 now=$3 target=$4 tour=$5 sweeps=$6
shift 6
# The kept state has the same clock and the same random numbers each time.
date -s "@$now" >/dev/null
perl -e 'open my $f, ">", "/dev/urandom" or die; syswrite $f, shift; ioctl($f, 0x5207, 0) or die' "$seed $now"
look "$@"
images=$*
if [ "$sweeps" = sweep ]; then
    log - "*"
    sweep
    images=''
fi
n=0
tell begin
[ "$tour" != tour ] || for each in pull pulls import load create commit tag rm rmi prune; do
    needs $each
    change $each
done
if [ "$target" != none ]; then
    some_changes
    needs "$target"
    mark='!'
    change "$target"
fi
while :; do sleep 60; done
