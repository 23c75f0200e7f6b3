package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kinds are what gcloud makes, lists and deletes, by the words of its commands.
var kinds = map[string]struct {
	api, name            string // name is what is before that of a thing when it is listed
	create, list, delete []string
	required             []string                           // of create
	needs                func(c call, name string) []string // what has to be there before
	holds                func(name string) []string         // what cannot be there any more when it is deleted
}{
	"artifacts repositories": {
		api: "artifactregistry", name: "projects/p/locations/r/repositories/",
		create: []string{"location", "repository-format", "labels"}, list: []string{"location"}, delete: []string{"location"},
		required: []string{"location", "repository-format"},
	},
	"storage buckets":      {api: "storage", create: []string{"location", "uniform-bucket-level-access", "public-access-prevention"}, required: []string{"location"}},
	"iam service-accounts": {api: "iam", create: []string{"display-name", "description"}},
	"compute networks": {
		api: "compute", create: []string{"subnet-mode", "description"}, required: []string{"subnet-mode"},
		holds: func(name string) []string { return []string{"compute networks subnets/" + name} },
	},
	"compute networks subnets": {
		api: "compute", create: []string{"network", "region", "range", "secondary-range", "enable-private-ip-google-access", "description"},
		list: []string{"network", "regions"}, delete: []string{"region"}, required: []string{"network", "region", "range"},
		needs: func(c call, _ string) []string { return []string{"compute networks/" + c.flags["network"]} },
		holds: func(name string) []string { return []string{"container clusters/" + name} },
	},
	"container clusters": {
		api: "container", list: []string{"region"}, delete: []string{"region"},
		create: []string{
			"region", "release-channel", "network", "subnetwork", "enable-ip-alias", "cluster-secondary-range-name", "services-secondary-range-name",
			"enable-dataplane-v2", "gateway-api", "workload-pool", "workload-metadata", "service-account", "scopes", "machine-type", "disk-size",
			"shielded-secure-boot", "num-nodes", "enable-autoscaling", "min-nodes", "max-nodes", "location-policy", "labels",
		},
		required: []string{"region"},
		needs: func(c call, _ string) []string {
			return []string{"compute networks/" + c.flags["network"], "compute networks subnets/" + c.flags["subnetwork"], "iam service-accounts/" + c.flags["service-account"]}
		},
	},
	"compute addresses": {api: "compute", create: []string{"global", "description"}, list: []string{"global"}, delete: []string{"global"}, required: []string{"global"}},
	"certificate-manager certificates": {
		api: "certificatemanager", name: "projects/p/locations/global/certificates/",
		create: []string{"location", "domains", "labels"}, list: []string{"location"}, delete: []string{"location"}, required: []string{"domains"},
		holds: func(name string) []string { return []string{"certificate-manager maps entries/" + name} },
	},
	"certificate-manager maps": {
		api: "certificatemanager", name: "projects/p/locations/global/certificateMaps/",
		create: []string{"location", "labels"}, list: []string{"location"}, delete: []string{"location"},
		holds: func(name string) []string { return []string{"certificate-manager maps entries/" + name} },
	},
	"certificate-manager maps entries": {
		api: "certificatemanager", name: "projects/p/locations/global/certificateMaps/m/certificateMapEntries/",
		create: []string{"location", "map", "certificates", "hostname", "labels"}, list: []string{"location", "map"}, delete: []string{"location", "map"},
		required: []string{"map", "certificates", "hostname"},
		needs: func(c call, _ string) []string {
			return []string{"certificate-manager maps/" + c.flags["map"], "certificate-manager certificates/" + c.flags["certificates"]}
		},
	},
}

func gcloud(c call) (string, bool, error) {
	if c.flags["project"] == "" || c.flags["quiet"] == "" {
		return "", false, errors.New("no --project, or it may ask")
	}
	delete(c.flags, "project")
	delete(c.flags, "quiet")
	json := c.flags["format"] == "json"
	delete(c.flags, "format")
	at := func(words ...string) bool {
		return len(c.words) >= len(words) && slices.Equal(c.words[:len(words)], words)
	}
	switch {
	case at("services", "list") && json:
		all := []map[string]any{}
		for api := range c.APIs {
			all = append(all, map[string]any{"name": "projects/1/services/" + api})
		}
		out, _, err := asJSON(all)
		return out, false, errors.Join(err, c.only("enabled"))
	case at("services", "enable"):
		for _, api := range c.words[2:] {
			c.APIs[api] = true
		}
		return "", true, c.only()
	case at("container", "clusters", "get-credentials"):
		if c.Things["container clusters/"+c.words[3]] == nil {
			return "", false, errors.New("NOT_FOUND: no cluster")
		}
		file := os.Getenv("KUBECONFIG")
		return "", false, errors.Join(os.WriteFile(file, []byte(c.words[3]), 0o600), c.only("region"))
	case at("storage", "buckets", "update"):
		bucket := c.Things["storage buckets/"+strings.TrimPrefix(c.words[3], "gs://")]
		if bucket == nil {
			return "", false, errors.New("not found: 404")
		}
		bucket["labels"] = labels(c.flags["update-labels"])
		return "", true, c.only("update-labels")
	case at("storage", "objects", "list") && json:
		all, in := []map[string]any{}, strings.TrimSuffix(strings.TrimPrefix(c.words[3], "gs://"), "**")
		for object := range c.Objects {
			if name, ok := strings.CutPrefix(object, in); ok {
				all = append(all, map[string]any{"name": name})
			}
		}
		out, _, err := asJSON(all)
		return out, false, errors.Join(err, c.only())
	case at("storage", "cp"):
		found, err := filepath.Glob(c.words[2])
		bucket, _, _ := strings.Cut(strings.TrimPrefix(c.words[3], "gs://"), "/")
		if len(found) == 0 || c.Things["storage buckets/"+bucket] == nil {
			return "", false, errors.Join(err, errors.New("the URLs matched no objects or files"))
		}
		for _, file := range found {
			to := strings.TrimPrefix(c.words[3], "gs://")
			if strings.HasSuffix(to, "/") {
				to += filepath.Base(file)
			}
			c.Objects[to] = true
		}
		return "", true, c.only()
	case at("storage", "rm"):
		bucket := strings.TrimPrefix(c.words[2], "gs://")
		if c.Things["storage buckets/"+bucket] == nil {
			return "", false, errors.New("not found: 404")
		}
		delete(c.Things, "storage buckets/"+bucket)
		delete(c.Roles, "storage buckets/"+bucket)
		for object := range c.Objects {
			if strings.HasPrefix(object, bucket+"/") {
				delete(c.Objects, object)
			}
		}
		return "", true, c.only("recursive")
	}
	for _, words := range []int{3, 2, 1} {
		if len(c.words) > words {
			group := strings.Join(c.words[:words], " ")
			if _, known := kinds[group]; known || group == "projects" {
				return c.gcloudThing(group, c.words[words], c.words[words+1:], json)
			}
		}
	}
	return "", false, fmt.Errorf("invalid choice: %q", c.words)
}

func (c call) gcloudThing(group, verb string, names []string, json bool) (string, bool, error) {
	k := kinds[group]
	if api := k.api + ".googleapis.com"; group != "projects" && !c.APIs[api] {
		return "", false, fmt.Errorf("SERVICE_DISABLED: %s", api)
	}
	name := ""
	if verb != "list" {
		if len(names) != 1 {
			return "", false, fmt.Errorf("%s %s takes one name, not %q", group, verb, names)
		}
		name = strings.TrimPrefix(names[0], "gs://")
	}
	key := group + "/" + name
	switch verb {
	case "list":
		all := []map[string]any{}
		for is, thing := range c.Things {
			if name, ok := strings.CutPrefix(is, group+"/"); ok {
				listed := maps.Clone(thing)
				listed["name"] = k.name + name
				all = append(all, listed)
			}
		}
		if !json {
			return "", false, errors.New("only JSON is read")
		}
		// Where entries are listed, their map has to be there.
		if of := c.flags["map"]; of != "" && c.Things["certificate-manager maps/"+of] == nil {
			return "", false, errors.New("NOT_FOUND: no map")
		}
		out, _, err := asJSON(all)
		return out, false, errors.Join(err, c.only(k.list...))
	case "create":
		if group == "iam service-accounts" {
			name += "@" + "my-project.iam.gserviceaccount.com"
			key = group + "/" + name
		}
		if c.Things[key] != nil {
			return "", false, errors.New("ALREADY_EXISTS")
		}
		for _, flag := range k.required {
			if c.flags[flag] == "" {
				return "", false, fmt.Errorf("argument --%s: must be specified", flag)
			}
		}
		if k.needs != nil {
			for _, need := range k.needs(c, name) {
				if c.Things[need] == nil {
					return "", false, fmt.Errorf("NOT_FOUND: %s", need)
				}
			}
		}
		made := map[string]any{"description": c.flags["description"], "labels": labels(c.flags["labels"])}
		switch group {
		case "iam service-accounts":
			made["email"] = name
		case "container clusters":
			made["resourceLabels"], made["status"] = made["labels"], "RUNNING"
			delete(made, "labels")
			c.Kube["/customresourcedefinition/gateways.gateway.networking.k8s.io"] = map[string]any{}
		case "compute addresses":
			made["address"] = "203.0.113.7"
		case "certificate-manager certificates":
			made["managed"] = map[string]any{"state": "PROVISIONING"}
		}
		c.Things[key] = made
		return "", true, c.only(k.create...)
	case "delete":
		if c.Things[key] == nil {
			return "", false, errors.New("NOT_FOUND")
		}
		if k.holds != nil {
			for _, held := range k.holds(name) {
				if c.Things[held] != nil {
					return "", false, fmt.Errorf("it is in use by %s", held)
				}
			}
		}
		delete(c.Things, key)
		delete(c.Roles, key)
		if group == "container clusters" {
			for object := range c.Kube {
				if strings.Contains(object, "/gateway/") || strings.Contains(object, "/persistentvolume/") {
					c.Leaked = append(c.Leaked, object)
				}
			}
			clear(c.Kube)
			clear(c.Applied)
		}
		return "", true, c.only(k.delete...)
	case "get-iam-policy":
		bindings := []map[string]any{}
		for _, is := range c.Roles[key] {
			role, member, _ := strings.Cut(is, " ")
			bindings = append(bindings, map[string]any{"role": role, "members": []string{member}})
		}
		out, _, err := asJSON(map[string]any{"bindings": bindings})
		return out, false, errors.Join(err, c.only("location"))
	case "add-iam-policy-binding", "remove-iam-policy-binding":
		return "", true, c.bind(group, key, verb == "add-iam-policy-binding")
	}
	return "", false, fmt.Errorf("invalid choice: %s %s", group, verb)
}

func (c call) bind(group, key string, add bool) error {
	member := c.flags["member"]
	account, ok := strings.CutPrefix(member, "serviceAccount:")
	pool := strings.HasSuffix(account, ".svc.id.goog[ebb/modelserver]") || strings.HasSuffix(account, ".svc.id.goog[ebb/modelsync]")
	switch {
	case group != "projects" && c.Things[key] == nil:
		return errors.New("NOT_FOUND")
	case !ok || c.flags["role"] == "" || c.flags["condition"] != "None":
		return errors.New("a member, a role and the condition None")
	case pool && c.Things["container clusters/ebb"] == nil:
		return errors.New("INVALID_ARGUMENT: Identity Pool")
	case !pool && c.Things["iam service-accounts/"+account] == nil:
		return errors.New("INVALID_ARGUMENT: no such account")
	}
	binding := c.flags["role"] + " " + member
	has := slices.Contains(c.Roles[key], binding)
	// What was made a moment ago is not known everywhere.
	if c.Tried[key+binding]++; add && c.Tried[key+binding] == 1 && !pool {
		return fmt.Errorf("INVALID_ARGUMENT: Service account %s does not exist", account)
	}
	if add && !has {
		c.Roles[key] = append(c.Roles[key], binding)
	}
	if !add {
		if !has {
			return errors.New("no such binding")
		}
		c.Roles[key] = slices.DeleteFunc(c.Roles[key], func(is string) bool { return is == binding })
		if len(c.Roles[key]) == 0 {
			delete(c.Roles, key)
		}
	}
	return c.only("member", "role", "condition", "location")
}

func labels(text string) map[string]string {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return nil
	}
	return map[string]string{name: value}
}
