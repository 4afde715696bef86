# Run a command where the root is a shared mount (most hosts': systemd's way). FOLDER/runner gets
# its process id, FOLDER/mounts the mounts that are left after it: on_shared_root.sh FOLDER COMMAND...
folder=$1
shift
mount --make-rshared / && "$@" &
runner=$!
echo $runner > "$folder/runner"
wait $runner
cat /proc/self/mountinfo > "$folder/mounts"
touch "$folder/over"
