package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// brings is what a file of a release brings, by a part of its address, and which files have to be applied before.
var brings = map[string]struct {
	objects []string // namespace/kind/name
	needs   []string
}{
	"cert-manager.yaml":               {objects: []string{"cert-manager/deployment/cert-manager-webhook"}},
	"cluster-operator.yml":            {objects: []string{"rabbitmq-system/deployment/rabbitmq-cluster-operator"}},
	"topology-operator-with-certmana": {objects: []string{"rabbitmq-system/deployment/messaging-topology-operator", "/customresourcedefinition/queues.rabbitmq.com", "/customresourcedefinition/operatorpolicies.rabbitmq.com"}, needs: []string{"cert-manager.yaml"}},
	"serving-crds.yaml":               {objects: []string{"/customresourcedefinition/services.serving.knative.dev"}},
	"serving-core.yaml": {
		objects: []string{
			"knative-serving/deployment/controller", "knative-serving/horizontalpodautoscaler/activator", "knative-serving/configmap/config-network", "knative-serving/configmap/config-features",
			"knative-serving/configmap/config-autoscaler", "knative-serving/configmap/config-domain",
		},
		needs: []string{"serving-crds.yaml"},
	},
	"kourier.yaml":         {objects: []string{"kourier-system/deployment/3scale-kourier-gateway", "kourier-system/service/kourier", "kourier-system/horizontalpodautoscaler/3scale-kourier-gateway"}, needs: []string{"serving-core.yaml"}},
	"eventing-crds.yaml":   {objects: []string{"/customresourcedefinition/brokers.eventing.knative.dev", "/customresourcedefinition/triggers.eventing.knative.dev"}},
	"eventing-core.yaml":   {objects: []string{"knative-eventing/deployment/eventing-controller"}, needs: []string{"eventing-crds.yaml"}},
	"rabbitmq-broker.yaml": {objects: []string{"knative-eventing/deployment/rabbitmq-broker-controller"}, needs: []string{"eventing-core.yaml", "topology-operator-with-certmana"}},
}

// reachesTheCluster says whether kubectl would reach the cluster of its kubeconfig.
func (c call) reachesTheCluster() error {
	name, err := os.ReadFile(os.Getenv("KUBECONFIG"))
	if err == nil && c.Things["container clusters/"+string(name)] == nil && c.Things["kind/"+string(name)] == nil {
		err = errors.New("the connection to the server was refused")
	}
	return err
}

func kubectl(c call) (string, bool, error) {
	if len(c.words) == 0 {
		return "", false, errors.New("no command")
	}
	if c.words[0] == "kustomize" {
		settings, err := os.ReadFile(filepath.Join(c.words[1], "gke.env"))
		return "kustomized\n" + string(settings), false, errors.Join(err, c.only("load-restrictor"))
	}
	if err := c.reachesTheCluster(); err != nil {
		return "", false, err
	}
	namespace := c.flags["namespace"]
	at := func(i int) string {
		if i < len(c.words) {
			return c.words[i]
		}
		return ""
	}
	kind, name := at(1), at(2)
	switch verb := c.words[0]; verb {
	case "get":
		return c.get(namespace, kind, name)
	case "wait":
		found := false
		for object := range c.Kube {
			found = found || strings.HasPrefix(object, namespace+"/"+kind+"/")
		}
		if !found {
			return "", false, fmt.Errorf("no matching resources found: %s in %q", kind, namespace)
		}
		return "", false, c.only("namespace", "for", "timeout", "all")
	case "apply":
		return "", true, errors.Join(c.apply(c.flags["filename"]), c.only("server-side", "force-conflicts", "filename"))
	case "create":
		if c.input == "" || c.Kube["ebb/secret/rabbitmq"] != nil {
			return "", false, errors.New("nothing to create, or AlreadyExists")
		}
		if c.Kube["/namespace/ebb"] == nil && !strings.Contains(c.input, "Namespace") {
			return "", false, errors.New("namespaces \"ebb\" not found")
		}
		c.Kube["ebb/secret/rabbitmq"] = map[string]any{}
		return "", true, c.only("filename")
	case "annotate", "patch":
		object := c.Kube[namespace+"/"+kind+"/"+name]
		if object == nil {
			return "", false, fmt.Errorf("NotFound: %s %s", kind, name)
		}
		patch := map[string]any{}
		if verb == "annotate" {
			key, value, _ := strings.Cut(at(3), "=")
			patch[key] = value
		} else if err := json.Unmarshal([]byte(c.flags["patch"]), &patch); err != nil {
			return "", false, err
		}
		merge(object, patch)
		return "", true, c.only("namespace", "overwrite", "type", "patch")
	case "delete":
		return "", true, errors.Join(c.remove(namespace, kind, name), c.only("namespace", "all", "timeout", "ignore-not-found"))
	}
	return "", false, fmt.Errorf("unknown command: %q", c.words)
}

func (c call) get(namespace, kind, name string) (string, bool, error) {
	object := c.Kube[namespace+"/"+kind+"/"+name]
	switch {
	case kind == "customresourcedefinition" || kind == "persistentvolume":
		return lines(c.Kube, "/"+kind+"/", kind+"/"), false, c.only("output")
	case strings.HasPrefix(kind, "queues.rabbitmq.com"):
		if c.Leftovers == 0 {
			return "", false, c.only("namespace", "output")
		}
		c.Leftovers--
		return "queue.rabbitmq.com/q\n", true, nil
	case object == nil && c.flags["ignore-not-found"] != "":
		return "", false, c.only("namespace", "ignore-not-found", "output")
	case object == nil:
		return "", false, fmt.Errorf("NotFound: %s %s", kind, name)
	case strings.HasPrefix(c.flags["output"], "jsonpath="):
		version, _ := object["ebb.dev/release"].(string)
		return version, false, nil
	case c.flags["output"] == "name":
		return kind + "/" + name + "\n", false, nil
	}
	return asJSON(object)
}

// lines are the names of what begins with prefix, a line each, with another prefix.
func lines(of map[string]map[string]any, prefix, other string) string {
	var out strings.Builder
	for _, is := range slices.Sorted(maps.Keys(of)) {
		if name, ok := strings.CutPrefix(is, prefix); ok {
			out.WriteString(other + name + "\n")
		}
	}
	return out.String()
}

func (c call) apply(file string) error {
	text := c.input
	if file != "-" {
		read, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text = string(read)
	}
	if strings.Contains(text, "kind: RabbitmqCluster") {
		c.Kube["rabbitmq/rabbitmqclusters.rabbitmq.com/rabbitmq"] = map[string]any{}
		c.Kube["rabbitmq/secret/rabbitmq-default-user"] = map[string]any{"data": map[string]any{"username": []byte("default_user_x"), "password": []byte("secret")}}
		return nil
	}
	if strings.Contains(text, "kind: Namespace") {
		c.Kube["/namespace/ebb"] = map[string]any{}
		return nil
	}
	for part, what := range brings {
		if !strings.Contains(text, part) {
			continue
		}
		for _, need := range what.needs {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(c.Applied)), func(is string) bool { return strings.Contains(is, need) }) {
				return fmt.Errorf("no matches for kind: %s needs %s", part, need)
			}
		}
		// A webhook that was just installed is not there at once.
		if c.Tried[text]++; len(what.needs) > 1 && c.Tried[text] == 1 {
			return errors.New("failed calling webhook: no endpoints available")
		}
		c.Applied[text] = true
		for _, object := range what.objects {
			if c.Kube[object] == nil {
				c.Kube[object] = map[string]any{}
			}
			if object == "kourier-system/service/kourier" {
				c.Kube[object]["spec"] = map[string]any{"type": "LoadBalancer"}
			}
		}
		return nil
	}
	return fmt.Errorf("nobody knows what is in %s: %.40q", file, text)
}

func (c call) remove(namespace, kind, name string) error {
	if kind == "namespace" {
		for object := range c.Kube {
			if strings.HasPrefix(object, name+"/") {
				if strings.Contains(object, "triggers.eventing") {
					return errors.New("the namespace never ends: its triggers need the Secret that has gone")
				}
				delete(c.Kube, object)
			}
		}
		delete(c.Kube, "/persistentvolume/rabbitmq-0")
		delete(c.Kube, "/namespace/"+name)
		return nil
	}
	if c.Kube["/customresourcedefinition/"+kind] == nil {
		return fmt.Errorf("the server doesn't have a resource type %q", kind)
	}
	for object := range c.Kube {
		of := namespace + "/" + strings.SplitN(kind, ".gateway", 2)[0] + "/"
		if kind == "gateways.gateway.networking.k8s.io" {
			of = namespace + "/gateway/"
		}
		if strings.HasPrefix(object, of) && (c.flags["all"] != "" || strings.HasSuffix(object, "/"+name)) {
			delete(c.Kube, object)
		}
	}
	return nil
}

// merge is what a JSON merge patch does.
func merge(object, patch map[string]any) {
	for key, value := range patch {
		inner, ok := value.(map[string]any)
		if is, isMap := object[key].(map[string]any); ok && isMap {
			merge(is, inner)
			continue
		}
		object[key] = value
	}
}

// ko applies Ebb: what there is then has a load balancer and disks outside of the cluster, and queues.
func ko(c call) (string, bool, error) {
	if err := errors.Join(c.reachesTheCluster(), c.only("filename")); err != nil {
		return "", false, err
	}
	switch {
	case os.Getenv("KO_DOCKER_REPO") == "" || os.Getenv("KO_CONFIG_PATH") == "":
		return "", false, errors.New("KO_DOCKER_REPO environment variable is unset")
	case c.words[0] != "apply" || !strings.HasPrefix(c.input, "kustomized"):
		return "", false, errors.New("nothing to apply")
	case c.Kube["ebb/secret/rabbitmq"] == nil:
		return "", false, errors.New("the Secret has to be there first")
	}
	for _, object := range []string{
		"ebb/rabbitmqclusters.rabbitmq.com/rabbitmq", "ebb/brokers.eventing.knative.dev/ebb", "ebb/triggers.eventing.knative.dev/cat",
		"ebb/services.serving.knative.dev/ingress", "kourier-system/gateway/ebb", "/persistentvolume/rabbitmq-0",
	} {
		c.Kube[object] = map[string]any{"applied": c.input, "repository": os.Getenv("KO_DOCKER_REPO")}
	}
	c.Leftovers = 1
	return "", true, nil
}
