#!/bin/bash
# Builds what a sandbox runs, from Debian's packages: kubernetes.sh WORK TARGET
#
# Kubernetes is compiled from Debian's source package with Debian's Go. etcd, containerd, runc, the network plugins,
# iptables, conntrack and busybox are Debian's binary packages, unpacked and not installed. The machine's own packages
# and lists are left alone: apt gets a state of its own in WORK.
#
# Needs Debian 12 (bookworm) with `main` in apt's sources, root, dpkg-dev; 180 MB of downloads, 2.6 GB in WORK while it
# runs, 220 MB in TARGET after. About three minutes on two cores.
set -euo pipefail

work=$1
target=$2
here=$(dirname "$(readlink -f "$0")")
release=bookworm
go_version=1.19
libraries=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }

for program in apt-get dpkg-source dpkg-architecture; do
  command -v "$program" > /dev/null || { echo "$program is missing: apt-get install dpkg-dev" >&2; exit 1; }
done

# --- packages -------------------------------------------------------------------------------------------------------

packages=(
  golang-$go_version-go golang-$go_version-src golang-github-modern-go-reflect2-dev
  etcd-server containerd runc containernetworking-plugins busybox-static
  iptables conntrack libxtables12 libnetfilter-conntrack3 libnfnetlink0 libmnl0 libnftnl11
)
mkdir -p "$work"/{lists/partial,cache/archives/partial,packages,source,root}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' | sort -u |
  while read -r uri suite component; do
    if [[ $suite == $release* && $component == main ]]; then
      printf 'deb [signed-by=%s] %s %s main\ndeb-src [signed-by=%s] %s %s main\n' \
        "$keyring" "$uri" "$suite" "$keyring" "$uri" "$suite"
    fi
  done > "$work/sources.list"
if [ ! -s "$work/sources.list" ]; then
  echo "apt's sources do not have Debian $release main: add it, or name a directory of programs in KUBEBUILDER_ASSETS" >&2
  exit 1
fi
apt() {
  apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root "$@"
}
apt update
(cd "$work/packages" && apt download "${packages[@]}")
(cd "$work/source" && apt --download-only source kubernetes)
for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
say "packages are here"

# --- source ---------------------------------------------------------------------------------------------------------

# It is compiled as it was when it was new: below a GOPATH, without modules.
export GOROOT=$work/root/usr/lib/go-$go_version GOPATH=$work/go GOCACHE=$work/go-cache
export GO111MODULE=off GOFLAGS= GOENV=off CGO_ENABLED=0
export PATH=$GOROOT/bin:$PATH
kubernetes=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$(dirname "$kubernetes")"
dpkg-source --no-check -x "$work"/source/kubernetes_*.dsc "$kubernetes" > "$work/dpkg-source.log"
cd "$kubernetes"

# The reflect2 that it vendors does not know the maps of Go 1.18 and later; Debian's package of the next version does.
reflect2=github.com/modern-go/reflect2
rm -f vendor/$reflect2/*.go vendor/$reflect2/*.s
cp "$work/root/usr/share/gocode/src/$reflect2"/*.{go,s} vendor/$reflect2/

# A kubelet would look for the credentials of clouds at every start, and wait.
sed -i '\#kubernetes/pkg/credentialprovider/#d' cmd/kubelet/app/plugins.go

# The definitions of OpenAPI are generated, and the source package lacks them: its own generator makes them.
openapi=pkg/generated/openapi
if [ ! -f $openapi/zz_generated.openapi.go ]; then
  nice go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
  inputs=$(grep -rl --include='*.go' '^// *+k8s:openapi-gen=true' pkg cmd staging/src/k8s.io | xargs -n1 dirname | sort -u |
    grep -v -e code-generator -e sample-apiserver |
    sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#; t' -e 's#^#k8s.io/kubernetes/#' | paste -sd,)
  "$work/openapi-gen" --input-dirs "$inputs" --output-package k8s.io/kubernetes/$openapi --output-file-base zz_generated.openapi \
    --go-header-file hack/boilerplate/boilerplate.generatego.txt --report-filename "$work/openapi-violations" --output-base "$GOPATH/src"
  # What the generator complains about must be what upstream knows of.
  diff "$work/openapi-violations" api/api-rules/violation_exceptions.list
fi
say "source is ready"

# --- compilation ----------------------------------------------------------------------------------------------------

dsc=$(basename "$work"/source/kubernetes_*.dsc)
version=$(sed 's/.*really\([0-9.]*\)-.*/\1/; s/^kubernetes_\([0-9.]*\).*/\1/' <<< "$dsc")
major=${version%%.*} minor=$(cut -d. -f2 <<< "$version")
flags="-s -w"
for package in k8s.io/kubernetes/vendor/k8s.io/{component-base/version,client-go/pkg/version}; do
  flags+=" -X $package.gitMajor=$major -X $package.gitMinor=$minor -X $package.gitVersion=v$version -X $package.gitTreeState=archive"
done
mkdir -p cmd/kube "$work/made"/{bin,cni,xtables/{lib,plugins}}
cp "$here/kube.go" cmd/kube/main.go
made=$work/made
nice go build -trimpath -tags providerless,dockerless -ldflags "$flags" -o "$made/bin/kube-apiserver" ./cmd/kube
for name in kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
  ln "$made/bin/kube-apiserver" "$made/bin/$name"
done
say "Kubernetes $version is compiled"

# --- Debian's programs ----------------------------------------------------------------------------------------------

root=$work/root
cp "$root"/usr/bin/{etcd,containerd,ctr,containerd-shim-runc-v2} "$root/usr/sbin/runc" "$made/bin/"
cp "$(find "$root" -path '*bin/busybox' -type f)" "$made/bin/"
cp "$root"/usr/lib/cni/{bridge,host-local,loopback,portmap} "$made/cni/"
cp "$root"/usr/sbin/{conntrack,xtables-nft-multi} "$made/xtables/"
cp -a "$root$libraries"/lib*.so.* "$made/xtables/lib/"
cp -a "$root$libraries"/xtables/*.so "$made/xtables/plugins/"
# These need libraries that are not installed: they are called with a path to them.
wrap() { # NAME PROGRAM [FIRST ARGUMENT]
  cat > "$made/bin/$1" << WRAPPER
#!/bin/sh
here=\${0%/*}/../xtables
export LD_LIBRARY_PATH=\$here/lib XTABLES_LIBDIR=\$here/plugins
exec "\$here/$2" ${3:-} "\$@"
WRAPPER
  chmod +x "$made/bin/$1"
}
for family in iptables ip6tables ebtables; do
  for name in $family $family-save $family-restore; do wrap $name xtables-nft-multi $name; done
done
wrap conntrack conntrack

# In place at once, so that nobody finds half of it.
rm -rf "$target"/{bin,cni,xtables}
mv "$made"/{cni,xtables,bin} "$target/"
chmod -R u+w "$work"
say "done: $(du -sh "$target/bin" | cut -f1) in $target/bin"
