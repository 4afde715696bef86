#!/bin/sh
# The usual way to freeze a snapshot: the steps of emerge-webrsync (extract, rsync over the work
# tree), then git. Usage: usual_freeze.sh WORKTREE ARCHIVE TAG. The signature is not checked. git
# does not pack in the background: that would slow whatever is timed next.
set -eu
tree=$1 archive=$2 tag=$3
[ -d "$tree/.git" ] || git init -q "$tree"
extracted=$tree.extracted
mkdir "$extracted"
tar -C "$extracted" --no-same-owner -xf "$archive"
rsync -a --delete --exclude=/.git "$extracted"/*/ "$tree/"
cd "$tree"
git add -A
git -c gc.auto=0 -c user.name=bench -c user.email=bench@localhost commit -q -m "$tag"
git -c user.name=bench -c user.email=bench@localhost tag -m "$tag" "$tag"
