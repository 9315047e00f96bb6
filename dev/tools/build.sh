#!/usr/bin/env bash
# Builds the pinned binaries of one tool family, or prints where they already are.
#
#   dev/tools/build.sh FAMILY     -> prints the directory that holds the family's binaries
#
# A family is a directory here with a go.mod whose `tool` lines name the programs. The result lies in the user's cache
# directory under a hash of everything that decides it (go.mod, go.sum, sources of ours, the flags below, the Go version), so a second
# clone finds it there and a changed pin builds anew. Kubernetes itself is downloaded where its release site can be reached.
. "$(dirname "$0")/../lib.sh"
cd "$root/dev/tools"
family=${1:?usage: build.sh FAMILY}
[ -f "$family/go.mod" ] || { echo "no such tool family: $family" >&2; exit 2; }
cd "$family"

version_of() { awk -v module="$1" '$1 == module && $2 ~ /^v/ {print $2; exit} $1 == "require" && $2 == module {print $3; exit}' go.mod; }

tags="" ldflags="-s -w" cgo=0 sources=""
case $family in
  k8s)
    version=$(version_of k8s.io/kubernetes); minor=${version#v1.}; minor=${minor%%.*}
    tags=notest,grpcnotrace
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
      ldflags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor"
      ldflags+=" -X $package.gitTreeState=clean -X $package.gitCommit=unknown -X $package.buildDate=1970-01-01T00:00:00Z"
    done ;;
  containerd)
    tags=no_btrfs,no_aufs,no_zfs,no_devmapper
    ldflags+=" -X github.com/containerd/containerd/v2/version.Version=$(version_of github.com/containerd/containerd/v2)" ;;
  runc)
    cgo=1 tags=seccomp,netgo,osusergo
    ldflags+=" -extldflags -static -X main.version=$(version_of github.com/opencontainers/runc | tr -d v)" ;;
  helm)
    helm=helm.sh/helm/v3
    ldflags+=" -X $helm/internal/version.version=$(version_of $helm) -X $helm/internal/version.gitTreeState=clean"
    for package in $helm/pkg/chartutil $helm/pkg/lint/rules; do
      ldflags+=" -X $package.k8sVersionMajor=1 -X $package.k8sVersionMinor=34"
    done ;;
  grpcurl) ldflags+=" -X main.version=$(version_of github.com/fullstorydev/grpcurl)" ;;
  virtctl) ldflags+=" -X kubevirt.io/client-go/version.gitVersion=$(version_of kubevirt.io/kubevirt)" ;;
  csi) sources=$(cat csi-hostpath/*.go) ;;
  policies) sources=$(cat policies/*.go) ;;
  multus) ldflags+=" -X gopkg.in/k8snetworkplumbingwg/multus-cni.v4/pkg/multus.version=$(version_of gopkg.in/k8snetworkplumbingwg/multus-cni.v4)" ;;
  cni) ldflags+=" -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$(version_of github.com/containernetworking/plugins)" ;;
esac

# The compiler comes from Debian's packages where there is none; it fetches the version that a go.mod asks for by itself.
need_go() {
  ! command -v go >/dev/null || return 0
  command -v apt-get >/dev/null || fail "the Go toolchain is needed to build $family: https://go.dev/dl/"
  say "installing Debian's package golang-go"
  local sudo=(); [ "$(id -u)" = 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends golang-go >/dev/null
}

need_go
key=$( { cat go.mod go.sum; echo "$tags|$ldflags|$cgo$sources"; go version; } | sha256sum | cut -c1-16)
result=$cache/tools/$family-$key

# add_definitions MODULE PATTERN: those of the resources that a family's programs serve or read come in one of its modules.
add_definitions() {
  mkdir "$result.partial/crds"
  cp "$(go list -m -f '{{.Dir}}' "$1")"/$2 "$result.partial/crds/"
}

# official_binaries: Kubernetes' own release, each file checked against its published digest; fails where it cannot be reached.
official_binaries() {
  local base=https://dl.k8s.io/release/$version/bin/linux/amd64 program
  [ "$(uname -m)" = x86_64 ] && command -v curl >/dev/null && curl -fsSL -m 3 -o "$result.partial/probe" "$base/kubectl.sha256" 2>/dev/null || return 1
  rm "$result.partial/probe"
  say "downloading Kubernetes $version from dl.k8s.io"
  for program in $(sed -n 's#^\tk8s.io/kubernetes/cmd/##p' go.mod); do
    curl -fsSL -m 600 -o "$result.partial/$program" "$base/$program" || return 1
    echo "$(curl -fsSL -m 30 "$base/$program.sha256")  $result.partial/$program" | sha256sum --check --quiet || return 1
    chmod 755 "$result.partial/$program"
  done
}

build_from_modules() {
  local started=$SECONDS ticker status=0
  say "building $family from Go modules (once; kept in $result)"
  tick_until_killed & ticker=$!
  CGO_ENABLED=$cgo GOFLAGS=-mod=readonly \
    go build -buildvcs=false -trimpath -tags "$tags" -ldflags "$ldflags" -o "$result.partial/" tool 2> >(grep -v "^go: downloading" >&2) || status=$?
  kill "$ticker"
  wait "$ticker" || true
  [ "$status" -eq 0 ] || fail "building $family failed"
  case $family in
    csi) add_definitions github.com/kubernetes-csi/external-snapshotter/client/v8 'config/crd/snapshot.*.yaml' ;;
    multus) add_definitions github.com/k8snetworkplumbingwg/network-attachment-definition-client artifacts/networks-crd.yaml ;;
  esac
  [ ! -f "$result.partial/server" ] || mv "$result.partial/server" "$result.partial/etcd"   # etcd's main package is called "server"
  printf '    %d s\n' $((SECONDS - started)) >&2
}

if [ ! -f "$result/.complete" ]; then
  mkdir -p "$cache/tools"
  exec 9>"$cache/tools/$family.lock"
  flock 9   # another checkout may be building the same
fi
if [ ! -f "$result/.complete" ]; then
  rm -rf "$result" "$result.partial"
  mkdir -p "$result.partial"
  [ "$family" != runc ] || host_packages gcc libc6-dev libseccomp-dev pkg-config
  { [ "$family" = k8s ] && official_binaries; } || build_from_modules
  touch "$result.partial/.complete"
  mv "$result.partial" "$result"
fi
echo "$result"
