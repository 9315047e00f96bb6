// policies enforces NetworkPolicies on the node it runs on: kube-router's controller of them, and nothing else of kube-router, as k3s
// has it. Pods, namespaces and policies are watched; what they come to stands in iptables' filter table and in sets of addresses.
//
// The node's name comes as an argument, then the ranges of Services' addresses; the API server is found as every pod finds it. A family
// of addresses that the node has none of is left alone. What was set up stays when this ends: policies.sh takes it away.
package main

import (
	"context"
	"errors"
	"log"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	netutils "k8s.io/utils/net"
)

// setsOfFamily are the kernel's sets of one family of addresses, under the names that the rules have for them. The kernel has one list
// of all sets. kube-router's own handler of a family takes those of the other from it, too, and so writes again what it saw of them
// once over what they have become (cloudnativelabs/kube-router#1665); and it has other names for those of IPv6 than its rules.
type setsOfFamily struct {
	*utils.IPSet
	family string
}

// Save takes over what the kernel has.
func (sets setsOfFamily) Save() error {
	if err := sets.IPSet.Save(); err != nil {
		return err
	}
	maps.DeleteFunc(sets.Sets(), func(_ string, set *utils.Set) bool { return !slices.Contains(set.Options, sets.family) })
	return nil
}

// RefreshSet says what a set shall have in it from the next Restore on.
func (sets setsOfFamily) RefreshSet(name string, entries [][]string, kind string) {
	set := sets.Get(name)
	if set == nil {
		set = &utils.Set{Parent: sets.IPSet, Name: name,
			Options: []string{kind, utils.OptionFamilly, sets.family, utils.OptionTimeout, "0"}}
		sets.Sets()[name] = set
	}
	set.Entries = nil
	for _, options := range entries {
		set.Entries = append(set.Entries, &utils.Entry{Set: set, Options: options})
	}
}

// setHandlers are those of the families that there are tables of.
func setHandlers(tables map[corev1.IPFamily]utils.IPTablesHandler) (map[corev1.IPFamily]utils.IPSetHandler, error) {
	handlers := map[corev1.IPFamily]utils.IPSetHandler{}
	for family := range tables {
		sets, err := utils.NewIPSet(false) // true would be its names of IPv6
		if err != nil {
			return nil, err
		}
		handlers[family] = setsOfFamily{sets, utils.FamillyInet}
		if family == corev1.IPv6Protocol {
			handlers[family] = setsOfFamily{sets, utils.FamillyInet6}
		}
	}
	return handlers, nil
}

// configuration is what kube-router asks for, with the families of addresses that a node has.
func configuration(node *corev1.Node, serviceRanges []string) *options.KubeRouterConfig {
	config := options.NewKubeRouterConfig()
	config.HostnameOverride = node.Name
	ipv4, ipv6 := utils.GetAllNodeIPs(node)
	config.EnableIPv4, config.EnableIPv6 = len(ipv4) > 0, len(ipv6) > 0
	config.ClusterIPCIDRs = nil
	for _, one := range serviceRanges {
		if (netutils.IsIPv6CIDRString(one) && config.EnableIPv6) || (netutils.IsIPv4CIDRString(one) && config.EnableIPv4) {
			config.ClusterIPCIDRs = append(config.ClusterIPCIDRs, one)
		}
	}
	return config
}

// enforce returns when the context has ended, or with what kept it from beginning.
func enforce(ctx context.Context, nodeName string, serviceRanges []string) error {
	access, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		return err
	}
	node, err := client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	config := configuration(node, serviceRanges)
	tables, _, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return err
	}
	sets, err := setHandlers(tables)
	if err != nil {
		return err
	}

	factory := informers.NewSharedInformerFactory(client, 0)
	pods, namespaces := factory.Core().V1().Pods().Informer(), factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces, &sync.Mutex{}, tables, sets)
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return errors.New("stopped before all was read: " + kind.String())
		}
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods: controller.PodEventHandler, namespaces: controller.NamespaceEventHandler, policies: controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}

	heartbeats := make(chan *healthcheck.ControllerHeartbeat) // one at the beginning of each pass, which waits until it was taken
	go func() {
		for range heartbeats {
		}
	}()
	log.Printf("enforcing NetworkPolicies on %s (IPv4: %t, IPv6: %t)", node.Name, config.EnableIPv4, config.EnableIPv6)
	var running sync.WaitGroup
	running.Add(1)
	controller.Run(heartbeats, ctx.Done(), &running)
	running.Wait()
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) < 3 {
		log.Fatal("usage: policies NODE SERVICE_RANGE...")
	}
	if err := enforce(ctx, os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}
