#!/bin/bash
# Puts Multus before its node's own network for as long as this runs: the program, what it asks the API server with, and last the
# configuration, which is the first by name and so the one that containerd takes. A file appears whole or not at all.
#
# Reads the ServiceAccount's token in /token; writes to the node's directories under /host.
set -euo pipefail
configuration=/host/etc/cni/net.d/00-multus.conf
access=/etc/cni/net.d/multus.d/multus.kubeconfig      # as the node sees it

put() { # FILE MODE: what comes on stdin
  install -D -m "$2" /dev/stdin "$1.new" && mv "$1.new" "$1"
}

resting=
trap 'rm -f "$configuration"; [ -z "$resting" ] || kill "$resting"; exit 0' TERM INT
put /host/opt/cni/bin/multus 755 </usr/local/bin/multus
put "/host$access" 600 <<X
{"apiVersion": "v1", "kind": "Config", "current-context": "multus",
 "contexts": [{"name": "multus", "context": {"cluster": "podvisor-dev", "user": "multus"}}],
 "clusters": [{"name": "podvisor-dev", "cluster": {"server": "https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT",
   "certificate-authority-data": "$(base64 -w0 /token/ca.crt)"}}],
 "users": [{"name": "multus", "user": {"token": "$(cat /token/token)"}}]}
X
# The node's own network is written into it: of one that is named by its file ("clusterNetwork"), Multus forgets the IPAM until a pod goes.
put "$configuration" 644 <<X
{"cniVersion": "1.0.0", "name": "multus", "type": "multus", "capabilities": {"portMappings": true}, "kubeconfig": "$access",
 "delegates": [$(cat /host/etc/cni/net.d/10-pods.conflist)]}
X
sleep infinity & resting=$!
wait
