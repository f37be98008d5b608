# Makes the namespaces it is started in (network, mounts, processes) a node's, and becomes the
# process that holds them. Arguments: the node's folder, the pause program.
set -eu
folder=$1
pause=$2

exec 3>"$folder/anchor.part"
# /proc is still the machine's, and so is the number that this shell reads there of itself.
read -r pid _ </proc/self/stat

mount -t proc proc /proc
echo 1 >/proc/sys/net/ipv4/ip_forward

# kubelet writes three settings that belong to the whole machine. It gets files to write to, and
# no way to the others.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
for setting in kernel/panic kernel/panic_on_oops vm/overcommit_memory; do
    mount --bind "$folder/sysctl/$(basename "$setting")" "/proc/sys/$setting"
done

# The paths that Kubernetes' manifests name are the node's own. Nothing of it is seen on the
# machine or in another node, and all of it goes with the last process of the node.
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$folder/log" /var/log
mount --bind "$folder/lib" /var/lib # hides $folder

# Only now, so that no two of the mounts above mirror each other; from here on pods with
# Bidirectional propagation mount for the whole node.
mount --make-rshared /

echo "$pid" >&3
exec 3>&-
cd /
exec "$pause"
