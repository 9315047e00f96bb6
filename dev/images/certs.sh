#!/bin/bash
# Certificates and kubeconfigs of the development cluster, into a volume that all its containers share.
#
#   certs.sh APISERVER_IP SERVICE_IP HOST_PORT NODE=IP...
#
# What exists stays, and a file appears whole or not at all, so that it may run on every start and be killed at any moment.
# Writes to /pki; the person's kubeconfig also to /out/kubeconfig.
set -euo pipefail
umask 077
apiserver_ip=$1 service_ip=$2 host_port=$3
shift 3
mkdir -p /pki && cd /pki
new=$(mktemp -d /pki/.new.XXXXXX)
trap 'rm -rf "$new"' EXIT

ec_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# The key is moved into place before the certificate: a certificate that is there always has its key.
authority() { # NAME
  [ ! -s "$1.crt" ] || return 0
  ec_key "$new/key"
  openssl req -x509 -new -key "$new/key" -subj "/CN=$1" -days 3650 -out "$new/crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
  mv "$new/key" "$1.key" && mv "$new/crt" "$1.crt"
}

certificate() { # NAME AUTHORITY SUBJECT serverAuth|clientAuth [SUBJECT_ALTERNATIVE_NAMES]
  [ ! -s "$1.crt" ] || return 0
  ec_key "$new/key"
  openssl req -new -key "$new/key" -subj "$3" -out "$new/csr"
  { echo "keyUsage=critical,digitalSignature"; echo "extendedKeyUsage=$4"; [ -z "${5:-}" ] || echo "subjectAltName=$5"; } >"$new/extensions"
  openssl x509 -req -in "$new/csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 3650 -extfile "$new/extensions" -out "$new/crt" 2>/dev/null
  mv "$new/key" "$1.key" && mv "$new/crt" "$1.crt"
}

kubeconfig() { # FILE CERTIFICATE SERVER
  cat >"$new/conf" <<X
{"apiVersion": "v1", "kind": "Config", "current-context": "podvisor-dev",
 "contexts": [{"name": "podvisor-dev", "context": {"cluster": "podvisor-dev", "user": "$2"}}],
 "clusters": [{"name": "podvisor-dev", "cluster": {"server": "$3", "certificate-authority-data": "$(base64 -w0 ca.crt)"}}],
 "users": [{"name": "$2", "user": {"client-certificate-data": "$(base64 -w0 "$2.crt")", "client-key-data": "$(base64 -w0 "$2.key")"}}]}
X
  mv "$new/conf" "$1"
}

client() { # NAME SUBJECT
  certificate "$1" ca "$2" clientAuth
  [ -s "$1.conf" ] || kubeconfig "$1.conf" "$1" "https://$apiserver_ip:6443"
}

authority ca
authority front-proxy-ca
if [ ! -s sa.pub ]; then
  openssl genrsa -out "$new/key" 2048
  openssl rsa -in "$new/key" -pubout -out "$new/pub" 2>/dev/null
  mv "$new/key" sa.key && mv "$new/pub" sa.pub
fi
names=DNS:localhost,DNS:apiserver,DNS:kubernetes
for name in default default.svc default.svc.cluster.local; do names+=,DNS:kubernetes.$name; done
certificate apiserver ca /CN=kube-apiserver serverAuth "$names,IP:127.0.0.1,IP:$apiserver_ip,IP:$service_ip"
certificate apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
certificate front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client kube-proxy /CN=system:kube-proxy
for node; do
  name=${node%=*} ip=${node#*=}
  client "$name" "/O=system:nodes/CN=system:node:$name"
  certificate "$name-serving" ca "/CN=$name" serverAuth "DNS:$name,IP:$ip,IP:127.0.0.1"
done
kubeconfig admin-host.conf admin "https://127.0.0.1:$host_port"
install -m 600 admin-host.conf /out/kubeconfig.new && chown --reference=/out /out/kubeconfig.new && mv /out/kubeconfig.new /out/kubeconfig
