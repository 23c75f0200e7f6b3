// Package knative brings what Ebb needs onto a cluster that is empty: Knative Serving with Kourier, Eventing and its RabbitMQ
// broker, RabbitMQ's operators and cert-manager, each in one version. Whoever makes a cluster (hack/gke, hack/kind) uses it.
//
// It knows nothing of where the cluster is: that is the kubeconfig that its commands find.
package knative

import (
	"path"
	"strings"
)

// release is a version of a part, as its project publishes it.
type release struct {
	name, version string
	files         []string // in the order in which they are applied
	// namespace and deployment are where it is written down which version is installed, once all of it works.
	namespace, deployment string
}

const github = "https://github.com/"

// releases are in the order in which they are installed. The versions are those that hack/manifests has the types of, and those
// that Knative's own tests run with.
var releases = []release{
	{
		"cert-manager", "v1.18.0",
		[]string{github + "cert-manager/cert-manager/releases/download/v1.18.0/cert-manager.yaml"},
		"cert-manager", "cert-manager-webhook",
	},
	{
		"RabbitMQ's cluster operator", "v2.16.0",
		[]string{github + "rabbitmq/cluster-operator/releases/download/v2.16.0/cluster-operator.yml"},
		"rabbitmq-system", "rabbitmq-cluster-operator",
	},
	{
		"RabbitMQ's messaging topology operator", "v1.17.4",
		[]string{github + "rabbitmq/messaging-topology-operator/releases/download/v1.17.4/messaging-topology-operator-with-certmanager.yaml"},
		"rabbitmq-system", "messaging-topology-operator",
	},
	{
		"Knative Serving", "v1.21.2",
		[]string{
			github + "knative/serving/releases/download/knative-v1.21.2/serving-crds.yaml",
			github + "knative/serving/releases/download/knative-v1.21.2/serving-core.yaml",
		},
		"knative-serving", "controller",
	},
	{
		"Kourier", "v1.21.0",
		[]string{github + "knative-extensions/net-kourier/releases/download/knative-v1.21.0/kourier.yaml"},
		"kourier-system", "3scale-kourier-gateway",
	},
	{
		"Knative Eventing", "v1.21.1",
		[]string{
			github + "knative/eventing/releases/download/knative-v1.21.1/eventing-crds.yaml",
			github + "knative/eventing/releases/download/knative-v1.21.1/eventing-core.yaml",
		},
		"knative-eventing", "eventing-controller",
	},
	{
		"Knative's RabbitMQ broker", "v1.21.0",
		[]string{github + "knative-extensions/eventing-rabbitmq/releases/download/knative-v1.21.0/rabbitmq-broker.yaml"},
		"knative-eventing", "rabbitmq-broker-controller",
	},
}

// fileName is what a file is called here: two projects may have files of one name.
func fileName(url string) string {
	parts := strings.Split(strings.TrimPrefix(url, github), "/")
	return parts[1] + "-" + parts[len(parts)-2] + "-" + path.Base(url)
}

// definesKinds says whether a file has custom resource definitions and the next one objects of those.
func definesKinds(url string) bool { return strings.HasSuffix(url, "-crds.yaml") }
