# Run a command where FOLDER/site is on an overlay: on_overlay.sh FOLDER COMMAND...
set -e
folder=$1
shift
mkdir "$folder/lower" "$folder/upper" "$folder/work" "$folder/site"
mount -t overlay overlay -o "lowerdir=$folder/lower,upperdir=$folder/upper,workdir=$folder/work" \
	"$folder/site"
exec "$@"
