#!/usr/bin/env bash
# fresh.sh [SUITE [TARGET...]]: proves on a bare system (a debootstrap chroot of SUITE, default bookworm, plus make)
# that a fresh clone of this repository works: runs `make TARGET` for each TARGET, default run and test.
#
# Needs root and debootstrap.  The clone has the last commit, not uncommitted changes.  The mirror and the proxy are
# those of this machine's apt.  Mounts are made in a mount namespace of their own, which ends with the command, so that
# removing the folder cannot remove files through a mount.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:-bookworm}
[ $# = 0 ] || shift
[ $# != 0 ] || set -- run test

fail() {
    printf 'fresh.sh: %s\n' "$*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "NOTHING WAS PROVEN: a chroot needs root; run sudo $0"
command -v debootstrap >/dev/null || fail "NOTHING WAS PROVEN: debootstrap is missing; apt-get install debootstrap"
[ -z "$(git status --porcelain)" ] || echo "fresh.sh: note: uncommitted changes are not tested" >&2

# The mirror of this machine's release, and its components (main, universe, ...).
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
indexes=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI) $(COMPONENT)' 'Created-By: Packages')
mirror=$(awk -v own="$own" '$1 == own { print $2; exit }' <<<"$indexes")
components=$(awk -v own="$own" -v m="$mirror" '$1 == own && $2 == m { print $3 }' <<<"$indexes" | paste -sd,)
[ -n "$mirror" ] || fail "NOTHING WAS PROVEN: apt's sources name no mirror of $own"

folder=$(mktemp -d "${TMPDIR:-/tmp}/zgen-fresh.XXXXXX")
trap 'rm -rf --one-file-system "$folder"' EXIT
root=$folder/$suite

echo "== debootstrap $suite from the mirror of this machine" >&2
unshare --mount debootstrap --variant=minbase --include=make --components="$components" "$suite" "$root" "$mirror" \
    >"$folder/log" 2>&1 ||
    { tail -n 20 "$folder/log" >&2 && fail "debootstrap failed"; }
apt-config dump Acquire | grep -E 'Proxy|CaInfo|Verify' >"$root/etc/apt/apt.conf.d/90host" || true
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"

git clone --quiet --no-hardlinks . "$root/zgen"
for what in "$@"; do
    echo "== make $what in the fresh $suite" >&2
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 ${http_proxy:+http_proxy="$http_proxy"} \
        unshare --mount sh -c '
            mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/tmp" &&
            exec chroot "$1" sh -c "cd /zgen && make $2"' sh "$root" "$what" </dev/null ||
        fail "make $what failed in the fresh $suite"
done
echo "fresh.sh: proven on a fresh $suite: make $*" >&2
