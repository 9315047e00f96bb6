#!/bin/bash
# First process of a node container: prepares what a machine would have, then keeps containerd, kubelet and kube-proxy running.
#
#   node.sh KUBELET_FLAG...
#
# Environment: NODE_IP, POD_CIDR (this node's pods), CLUSTER_CIDR (all pods), PEERS ("POD_CIDR=NODE_IP ..." of the other nodes), and the
# same for IPv6 with a 6 behind the name, of which nothing is used where the kernel has no IPv6; CLUSTER_DNS, MIRRORED (registry hosts
# whose images come from http://registry:5000, and from nowhere else).
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

# masquerade PROGRAM CLUSTER_CIDR: what leaves the pods' network leaves with the node's address.
masquerade() {
  local rule=(POSTROUTING -s "$2" ! -d "$2" -o eth0 -j MASQUERADE)
  "$1" -t nat -C "${rule[@]}" 2>/dev/null || "$1" -t nat -A "${rule[@]}"
}

# take_ipv6_address: fails where the kernel has no IPv6, or no address translation for it. An engine turns IPv6 off on its networks.
take_ipv6_address() {
  sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.all.forwarding=1 &&
    ip6tables -t nat --list-rules >/dev/null && ip address replace "$NODE_IP6/64" dev eth0 nodad
}

sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.bridge.bridge-nf-call-iptables=1 || true
for peer in $PEERS; do ip route replace "${peer%=*}" via "${peer#*=}"; done
masquerade iptables "$CLUSTER_CIDR"
node_ips=$NODE_IP pod_ranges="[{\"subnet\": \"$POD_CIDR\"}]" pod_routes='{"dst": "0.0.0.0/0"}'
if take_ipv6_address; then
  sysctl -qw net.bridge.bridge-nf-call-ip6tables=1 || true
  for peer in $PEERS6; do ip route replace "${peer%=*}" via "${peer#*=}"; done
  masquerade ip6tables "$CLUSTER_CIDR6"
  node_ips+=,$NODE_IP6 pod_ranges+=", [{\"subnet\": \"$POD_CIDR6\"}]" pod_routes+=', {"dst": "::/0"}'
else
  echo "no IPv6 here: pods have IPv4 addresses alone"
fi
echo "nameserver $CLUSTER_DNS" >/etc/resolv.pods      # the container's own resolver lives in its network namespace only

mkdir -p /etc/cni/net.d
cat >/etc/cni/net.d/10-pods.conflist <<X
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [$pod_ranges], "routes": [$pod_routes]}},
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
keep kubelet kubelet "$@" --node-ip="$node_ips" & keepers+=($!)
keep kube-proxy kube-proxy --config=/etc/kubernetes/kube-proxy.yaml --hostname-override="$name" & keepers+=($!)
until [ -n "$stopping" ]; do wait || true; done
