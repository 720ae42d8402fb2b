# The guest's first process. It makes a root folder of a read-only view of the host's files and a writable layer in
# memory over it, and runs Python there. It stays process 1 (by exec), so that the kernel's own helpers, such as
# modprobe, have the same root. Arguments: BUSYBOX BYTECODE PYTHON INIT.PY MODULES. Under emulation, each command
# takes a tenth of a second.
b=$1
$b mount -t tmpfs -o mode=0755 run /run
$b mkdir -p /run/host /run/layer/upper /run/layer/work /run/root
# cache=loose: the host's files do not change while a guest runs, and Python reads thousands of them.
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose bpfmaps.host /run/host &&
    $b tar -xf "/run/host$2" -C /run/layer/upper &&
    $b mount -t overlay -o xino=off,lowerdir=/run/host,upperdir=/run/layer/upper,workdir=/run/layer/work root /run/root || {
    echo "bpfmaps: this kernel cannot mount the host's files (9p, overlay)"
    exec "$b" reboot -f
}
echo "bpfmaps: the host's files are mounted" # the gateway sees progress in each line
# The root folder becomes the root of the mount namespace, too. In a chroot alone, the kernel would refuse user namespaces.
cd /run/root && $b mount -o move /run/root /
# Descriptor 9 is the plain view of the host's files, for what must not be looked up through the layer.
exec 9</run/host "$b" chroot . "$3" -u -P "$4" "$5"
