// csi-hostpath is a CSI driver for the development cluster: a volume is one image file in a directory that all nodes share, served
// through a loop device, raw or with XFS in it.
//
// So a volume has a size that cannot be exceeded, grows while it is in use, and can be had on any node, on several at once too:
// the nodes are containers on one kernel, which knows one loop device, and one superblock, for an image. XFS because growing a mounted
// ext4 takes CAP_SYS_RESOURCE, which not every machine gives.
//
// The controller and every node run this one program. It keeps no state but the files; calls are made one after the other, over
// all processes, by a lock on the directory.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driverName = "hostpath.csi.podvisor.dev"

type driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	store    store
	node     string
	endpoint string
}

func (*driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driverName, VendorVersion: "1"}, nil
}

func (*driver) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}

func (*driver) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_CONTROLLER_SERVICE}}},
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: csi.PluginCapability_VolumeExpansion_ONLINE}}},
	}}, nil
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: driverName, Endpoint: d.endpoint,
		SupportedVersions: []string{"1.0.0"}}, nil
}

func (*driver) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("the kubelet refused the driver: %s", status.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

// logged tells of every call that changes something or fails.
func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	answer, err := handle(ctx, request)
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	if err != nil {
		log.Printf("%s %v: %v", method, request, err)
	} else if !strings.Contains(method, "Get") && method != "Probe" {
		log.Printf("%s done: %v", method, request)
	}
	return answer, err
}

// run runs a program and returns what it printed; the error holds its complaint.
func run(program string, arguments ...string) (string, error) {
	printed, err := exec.Command(program, arguments...).Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return "", errors.New(program + " " + strings.Join(arguments, " ") + ": " + strings.TrimSpace(string(failed.Stderr)))
	}
	return strings.TrimSpace(string(printed)), err
}

// serve serves on a unix socket, in place of one that an earlier process left there.
func serve(path string, register func(*grpc.Server)) *grpc.Server {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		log.Fatal(err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Fatal(err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(logged))
	register(server)
	go func() {
		if err := server.Serve(listener); err != nil {
			log.Fatal(err)
		}
	}()
	return server
}

func main() {
	d := &driver{}
	directory := flag.String("directory", "/var/lib/storage/csi", "where images of volumes and snapshots lie")
	register := flag.String("registration", "", "socket that the kubelet finds the driver by; the controller has none")
	flag.StringVar(&d.endpoint, "endpoint", "/csi/csi.sock", "socket of the driver, under the same path as on the node")
	flag.StringVar(&d.node, "node", os.Getenv("NODE_NAME"), "name of the node")
	flag.Parse()
	d.store = store{*directory}
	if err := d.store.prepare(); err != nil {
		log.Fatal(err)
	}
	stopped, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	servers := []*grpc.Server{serve(d.endpoint, func(server *grpc.Server) {
		csi.RegisterIdentityServer(server, d)
		csi.RegisterControllerServer(server, d)
		csi.RegisterNodeServer(server, d)
	})}
	if *register != "" {
		servers = append(servers, serve(*register, func(server *grpc.Server) { registration.RegisterRegistrationServer(server, d) }))
	}
	<-stopped.Done()
	for _, server := range servers {
		server.Stop()
	}
}
