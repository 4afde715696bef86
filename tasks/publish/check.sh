#!/bin/sh
# Verify the index of a binhost: its signature, its validity, and that it is not older than before.
# Portage verifies each package, but neither the index nor its age. Run this before an update. It
# needs a POSIX sh, gpgv, sha512sum, awk, and wget or curl.
#
# Usage: check URL NAME GROUP FINGERPRINT KEY [SEEN]
#   URL          of the binhost, as in binrepos.conf; or a directory
#   NAME, GROUP  the chroot that built the packages; public, site:X or role:X
#   FINGERPRINT  of the signing key, all 40 digits; KEY is a file with that key in binary form
#   SEEN         a file for the newest state seen (default: /var/lib/binmill/NAME.GROUP)
# Exit code: 0 verified; 1 refused; 2 wrong usage, or a program is missing; 3 download failed
set -eu
LC_ALL=C
export LC_ALL
umask 022

say() { printf 'check: %s\n' "$*"; }
refuse() { printf 'check: refused: %s\n' "$*" >&2; exit 1; }
fail() { printf 'check: %s\n' "$2" >&2; exit "$1"; }

case $# in
  5 | 6) ;;
  *) fail 2 "usage: check URL NAME GROUP FINGERPRINT KEY [SEEN]" ;;
esac
url=${1%/} name=$2 group=$3 fingerprint=$4 key=$5
seen=${6:-/var/lib/binmill/$name.$group}
case $fingerprint in
  *[!0-9A-F]*) fail 2 "a fingerprint has hexadecimal digits in upper case only" ;;
esac
[ ${#fingerprint} -eq 40 ] || fail 2 "a fingerprint has 40 digits"
[ -r "$key" ] || fail 2 "$key cannot be read"
for program in gpgv sha512sum awk mktemp; do
  command -v "$program" >/dev/null || fail 2 "$program is not installed"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ulimit -f 2097152  # blocks of 512 bytes: no download fills the disk

# fetch FILE: download it from the binhost into $work
fetch() {
  case $url in
    http://* | https://*)
      if command -v wget >/dev/null; then
        wget -q -T 60 -O "$work/$1" "$url/$1"
      elif command -v curl >/dev/null; then
        curl --netrc-optional -fsS -m 600 -o "$work/$1" "$url/$1"
      else
        fail 2 "neither wget nor curl is installed"
      fi ;;
    *) cp "$url/$1" "$work/$1" ;;
  esac || fail 3 "$url/$1 could not be fetched"
}

# value PATH: print a value of the manifest, which is JSON with one key a line. Verify it first.
value() {
  awk -v wanted="$1" '
    {
      match($0, /^ */)
      depth = RLENGTH
      line = substr($0, depth + 1)
      if (line !~ /^"[^"]*": /) next
      split(line, part, "\"")
      names[depth] = part[2]
      value = substr(line, length(part[2]) + 5)
      sub(/,$/, "", value)
      gsub(/^"|"$/, "", value)
      path = names[1]
      for (level = 2; level <= depth; level++) path = path "/" names[level]
      if (path == wanted) { print value; exit }
    }' "$work/release.json"
}

digits() {
  case $2 in
    '' | *[!0-9]* | ????????????????*) refuse "the manifest has no readable $1" ;;
  esac
}

# All files must be of one generation: fetch again if the binhost was switched in between.
tries=0
while
  fetch release.json
  fetch release.json.asc
  fetch Packages
  fetch Packages.gz
  mv "$work/release.json" "$work/first"
  fetch release.json
  ! cmp -s "$work/first" "$work/release.json"
do
  tries=$((tries + 1))
  [ "$tries" -lt 5 ] || fail 3 "$url changed during each of 5 attempts"
done

now=$(date -u +%s)
# gpgv exits with 0 for expired and revoked keys and for SHA-1, so its status lines decide
gpgv --homedir "$work" --keyring "$(cd "$(dirname "$key")" && pwd)/$(basename "$key")" \
  --weak-digest SHA1 --status-fd 3 "$work/release.json.asc" "$work/release.json" \
  3>"$work/status" 2>/dev/null || code=$?
[ "${code:-0}" -eq 0 ] || refuse "the manifest is not signed by the key in $key, or was modified"
awk -v wanted="$fingerprint" -v now="$now" '
  $1 != "[GNUPG:]" { bad = 1 }
  $2 ~ /^(BADSIG|ERRSIG|EXPSIG|EXPKEYSIG|REVKEYSIG|KEYREVOKED|NO_PUBKEY|NODATA|UNEXPECTED|FAILURE|ERROR)$/ { bad = 1 }
  $2 == "GOODSIG" { good++ }
  $2 == "VALIDSIG" {
    valid++
    if ($NF != wanted || $10 !~ /^(8|9|10)$/ || $5 > now + 600) bad = 1
  }
  END { exit bad || good != 1 || valid != 1 }
' "$work/status" || refuse "the manifest is not signed by $fingerprint"

[ "$(value name)" = "$name" ] || refuse "this is the binhost '$(value name)', not '$name'"
[ "$(value group)" = "$group" ] || refuse "this is for '$(value group)', not for '$group'"
until=$(value valid_until)
digits valid_until "$until"
[ "$now" -lt "$until" ] ||
  refuse "it expired $(((now - until) / 3600)) h ago: nothing newer is published, or it is withheld"

stamp=$(value timestamp)
digits timestamp "$stamp"
sum=$(sha512sum <"$work/release.json")
sum=${sum%% *}
if [ -s "$seen" ]; then
  read -r newest before _ <"$seen" || refuse "$seen cannot be read"
  digits "newest state in $seen" "$newest"
  [ "$stamp" -ge "$newest" ] ||
    refuse "it is older ($stamp) than the newest state seen ($newest)"
  [ "$stamp" -ne "$newest" ] || [ "$sum" = "$before" ] ||
    refuse "it differs from the newest state seen, with the same timestamp ($stamp)"
fi

for file in Packages Packages.gz; do
  wanted=$(value "files/$file/sha512")
  [ ${#wanted} -eq 128 ] || refuse "the manifest has no digest of $file"
  actual=$(sha512sum <"$work/$file")
  [ "${actual%% *}" = "$wanted" ] || refuse "$file does not match the signed digest"
done

mkdir -p "$(dirname "$seen")"
printf '%s %s\n' "$stamp" "$sum" >"$seen.new"
mv "$seen.new" "$seen"
say "$name for $group: generation $(value generation), valid for $(((until - now) / 86400)) more days"
