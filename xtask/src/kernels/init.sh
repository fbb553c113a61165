#!/bin/sh
# The first program of an emulated machine: tries the programs out on its kernel and powers it off. What is said
# on the console is read by report.rs.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
for packed in /modules/*.xz; do [ -e "$packed" ] && unxz "$packed"; done
for module in /modules/*.ko; do insmod "$module"; done
ip link set lo up
export MIRROR_CTL=/bin/mirror-ctl MIRROR_TRAFFIC=/bin/traffic MIRROR_EBPF_OBJECT=/mirror-ebpf

seconds() { cut -d. -f1 /proc/uptime; }

# step NAME COMMAND...: its output, and what became of it.
step() {
    name=$1
    shift
    echo "@@ begin $name"
    start=$(seconds)
    timeout 900 "$@" 2>&1
    status=$?
    echo "@@ end $name $status $(($(seconds) - start))"
    return $status
}

echo "@@ kernel $(uname -r)"
# One test first: on a kernel that refuses a program every one would try to load it again.
step load prog --test-threads=1 --nocapture other_traffic && {
    # Sizes are this project's own kernel's; clones are tried in generic mode too.
    step prog prog --test-threads=1 --skip sizes::programs_are --skip clones
    step clones prog --test-threads=1 clones
}
step native net --test-threads=1 mirrors::of_tcp_ipv4_native
step generic net --test-threads=1 mirrors::of_tcp_ipv4_generic
echo "@@ done"
poweroff -f
