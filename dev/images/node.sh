#!/bin/bash
# First process of a node container: prepares what a machine would have, then keeps containerd, kubelet and kube-proxy running.
#
#   node.sh KUBELET_FLAG...
#
# Environment: POD_CIDR (this node's pods), CLUSTER_CIDR (all pods), PEERS ("POD_CIDR=NODE_IP ..." of the other nodes),
# CLUSTER_DNS, MIRRORED (registry hosts whose images come from http://registry:5000, and from nowhere else).
# A daemon that ends is started again after a second; SIGTERM ends the pods' containers, then the daemons.
set -euo pipefail
name=$(hostname)

# On cgroup v2 a group with processes in it cannot hand controllers to its children: move ours aside.
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p /sys/fs/cgroup/node
  while read -r pid; do echo "$pid" >/sys/fs/cgroup/node/cgroup.procs || true; done </sys/fs/cgroup/cgroup.procs
  sed 's/\(^\| \)/ +/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
fi
mount --make-rshared /                       # mounts travel into pods and out of them
grep -qwE 'vmx|svm' /proc/cpuinfo || rm -f /dev/kvm   # the device node alone does not run a guest
chmod 0666 /dev/net/tun
for number in {0..63}; do                    # the kernel makes loop devices on demand, but no node for them here
  [ -b "/dev/loop$number" ] || mknod "/dev/loop$number" b 7 "$number"
  chgrp disk "/dev/loop$number"              # and its mode: as udev has them, which decides who in a pod may read a block claim
  chmod 0660 "/dev/loop$number"
done
[ -s /etc/machine-id ] || tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id

sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.bridge.bridge-nf-call-iptables=1 || true
for peer in $PEERS; do ip route replace "${peer%=*}" via "${peer#*=}"; done
masquerade=(POSTROUTING -s "$CLUSTER_CIDR" ! -d "$CLUSTER_CIDR" -o eth0 -j MASQUERADE)
iptables -t nat -C "${masquerade[@]}" 2>/dev/null || iptables -t nat -A "${masquerade[@]}"
echo "nameserver $CLUSTER_DNS" >/etc/resolv.pods      # the container's own resolver lives in its network namespace only

mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-pods.conflist <<X
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
for host in $MIRRORED; do
  mkdir -p "/etc/containerd/certs.d/$host"
  printf 'server = "http://registry:5000"\n[host."http://registry:5000"]\n  capabilities = ["pull", "resolve"]\n' \
    >"/etc/containerd/certs.d/$host/hosts.toml"
done

# The kubelet holds the device of a raw volume by a loop device on top of it. Such a lock outlives a node that is killed, and serves "/"
# then. Devices that another node uses stay as long as it does.
detach_devices() {
  local device file
  losetup --noheadings --output NAME,BACK-FILE | while read -r device file; do
    case $file in
      /) ;;
      /var/lib/kubelet/*) losetup --noheadings --output NAME --associated "$file" | grep -qx "$device" || continue ;;   # another node's
      *) continue ;;
    esac
    losetup --detach "$device"
  done
  for file in /var/lib/storage/csi/volumes/*.raw; do
    losetup --noheadings --output NAME --associated "$file" 2>/dev/null | xargs -r losetup --detach
  done
}

stopping=
keep() { # NAME COMMAND...: runs it again whenever it ends
  local daemon=$1
  shift
  while :; do
    "$@" 2>&1 || echo "$daemon ended (exit $?), starting it again"
    sleep 1
  done
}
stop() {
  stopping=yes
  kill "${keepers[@]}" 2>/dev/null || true
  pkill -x kubelet || true
  pkill -x kube-proxy || true
  ctr -n k8s.io tasks ls -q | xargs -r -n1 ctr -n k8s.io tasks kill -s KILL || true
  detach_devices || true
  pkill -x containerd || true
}
keepers=()
trap stop TERM INT
detach_devices || true

keep containerd containerd --config /etc/containerd/config.toml & keepers+=($!)
until ctr version >/dev/null 2>&1; do sleep 0.05; done
ctr -n k8s.io images import --local /opt/images/pause.tar >/dev/null
keep kubelet kubelet "$@" & keepers+=($!)
keep kube-proxy kube-proxy --config=/etc/kubernetes/kube-proxy.yaml --hostname-override="$name" & keepers+=($!)
until [ -n "$stopping" ]; do wait || true; done
