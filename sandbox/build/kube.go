// The daemons of Kubernetes and kubectl in one program, which is the one it is called by.
//
// They share most of what they link, so one program is a quarter of the size of six, and is linked once instead of
// six times. Each is set up as its own main package does it.
package main

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"time"
	_ "time/tzdata"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	_ "k8s.io/client-go/plugin/pkg/client/auth/exec"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// normalize lets flags be written with underscores, normalizeAndAdopt also takes over those of Go's flag package.
func normalize() {
	pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
}

func normalizeAndAdopt() {
	normalize()
	pflag.CommandLine.AddGoFlagSet(flag.CommandLine)
}

func nothing() {}

type program struct {
	command func() *cobra.Command
	prepare func()
}

var programs = map[string]program{
	"kube-apiserver":          {apiserver.NewAPIServerCommand, nothing},
	"kube-controller-manager": {controllers.NewControllerManagerCommand, nothing},
	"kube-scheduler":          {func() *cobra.Command { return scheduler.NewSchedulerCommand() }, normalize},
	"kubelet":                 {kubelet.NewKubeletCommand, nothing},
	"kube-proxy":              {proxy.NewProxyCommand, normalizeAndAdopt},
	"kubectl":                 {kubectl.NewDefaultKubectlCommand, normalizeAndAdopt},
}

func main() {
	rand.Seed(time.Now().UnixNano())
	name := filepath.Base(os.Args[0])
	chosen, known := programs[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call it by the name of a program of Kubernetes\n", name)
		os.Exit(2)
	}
	command := chosen.command()
	chosen.prepare()
	logs.InitLogs()
	err := command.Execute()
	logs.FlushLogs()
	if err != nil {
		os.Exit(1)
	}
}
